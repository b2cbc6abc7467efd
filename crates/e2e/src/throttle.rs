//! Throttles the operator with the API server's Priority and Fairness. The API server accepts one request at a time,
//! and answers all other requests with 429. Does I/O.

use std::fmt::Debug;

use k8s_openapi::api::flowcontrol::v1::{FlowSchema, PriorityLevelConfiguration};
use k8s_openapi::serde::Serialize;
use k8s_openapi::serde::de::DeserializeOwned;
use kube::api::{DeleteParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};

use crate::delete::delete_if_exists;
use crate::failure::{Failure, ensure};
use crate::operator::{OPERATOR_ACCOUNT, OPERATOR_NAMESPACE};
use crate::polling::eventually;

const THROTTLE_NAME: &str = "e2e-throttle";
/// The API groups that are throttled. The list does not contain the API group of the Lease, because the operator stops
/// if it cannot renew its Lease.
const API_GROUPS: [&str; 4] = ["", "apps", "discovery.k8s.io", "events.k8s.io"];
/// The precedence of the `FlowSchema`: after the exempt schemas (1 and 2), before all other predefined schemas.
const FLOW_SCHEMA_PRECEDENCE: u8 = 3;

/// The objects that configure the throttling.
pub(crate) struct Throttle {
    flow_schemas: Api<FlowSchema>,
    priority_levels: Api<PriorityLevelConfiguration>,
}

impl Throttle {
    pub(crate) fn new(client: &Client) -> Self {
        Self { flow_schemas: Api::all(client.clone()), priority_levels: Api::all(client.clone()) }
    }

    /// Allows the operator one request at a time: the priority level cannot borrow seats, and has no queue. Waits until
    /// the limit is active.
    pub(crate) async fn enable(&self) -> Result<(), Failure> {
        let limits = json!({
            "nominalConcurrencyShares": 0, "lendablePercent": 0, "borrowingLimitPercent": 0,
            "limitResponse": { "type": "Reject" },
        });
        let spec = json!({ "type": "Limited", "limited": limits });
        create(&self.priority_levels, spec).await?;
        let (namespace, name) = (OPERATOR_NAMESPACE, OPERATOR_ACCOUNT);
        let rules = json!([{
            "subjects": [{ "kind": "ServiceAccount", "serviceAccount": { "namespace": namespace, "name": name } }],
            "resourceRules": [{
                "verbs": ["*"], "apiGroups": API_GROUPS, "resources": ["*"], "namespaces": ["*"], "clusterScope": true,
            }],
        }]);
        let priority_level = json!({ "name": THROTTLE_NAME });
        let spec = json!({
            "matchingPrecedence": FLOW_SCHEMA_PRECEDENCE, "priorityLevelConfiguration": priority_level, "rules": rules,
        });
        create(&self.flow_schemas, spec).await?;
        eventually("the API server uses the FlowSchema", async || {
            let status = self.flow_schemas.get(THROTTLE_NAME).await?.status.unwrap_or_default();
            let conditions: Vec<_> = status.conditions.into_iter().flatten().collect();
            // The condition Dangling is False when the priority level exists.
            let is_active = conditions.iter().any(|condition| condition.status.as_deref() == Some("False"));
            ensure(is_active, || format!("the conditions of the FlowSchema are {conditions:?}"))
        })
        .await
    }

    pub(crate) async fn disable(&self) -> Result<(), Failure> {
        delete_if_exists(&self.flow_schemas, THROTTLE_NAME, &DeleteParams::default()).await?;
        delete_if_exists(&self.priority_levels, THROTTLE_NAME, &DeleteParams::default()).await
    }
}

async fn create<K>(api: &Api<K>, spec: Value) -> Result<(), Failure>
where
    K: Clone + DeserializeOwned + Serialize + Debug,
{
    let object = serde_json::from_value(json!({ "metadata": { "name": THROTTLE_NAME }, "spec": spec }));
    let object: K = object.map_err(kube::Error::SerdeError)?;
    api.create(&PostParams::default(), &object).await?;
    Ok(())
}

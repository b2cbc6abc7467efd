//! Too many requests: the API server's own fairness, set so that it refuses all but one at a time of the operator's. Does
//! I/O.

use std::fmt::Debug;

use k8s_openapi::api::flowcontrol::v1::{FlowSchema, PriorityLevelConfiguration};
use k8s_openapi::serde::Serialize;
use k8s_openapi::serde::de::DeserializeOwned;
use kube::api::{DeleteParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};

use crate::audit::OPERATOR_ACCOUNT;
use crate::{Failure, ensure, eventually};

const NAME: &str = "e2e-throttle";
/// All that it asks for but its Lease: without that it would stop asking.
const GROUPS: [&str; 4] = ["", "apps", "discovery.k8s.io", "events.k8s.io"];
/// Before all of the API server's own but those that it keeps to itself.
const PRECEDENCE: u8 = 3;

/// The objects that make the API server refuse.
pub(crate) struct Throttle {
    schemas: Api<FlowSchema>,
    levels: Api<PriorityLevelConfiguration>,
}

impl Throttle {
    pub(crate) fn of(client: &Client) -> Self {
        Self { schemas: Api::all(client.clone()), levels: Api::all(client.clone()) }
    }

    /// One seat, none to borrow, and no queue: 429 for whatever comes at the same time.
    pub(crate) async fn on(&self) -> Result<(), Failure> {
        let limits = json!({
            "nominalConcurrencyShares": 0, "lendablePercent": 0, "borrowingLimitPercent": 0,
            "limitResponse": { "type": "Reject" },
        });
        let spec = json!({ "type": "Limited", "limited": limits });
        create(&self.levels, spec).await?;
        let (namespace, name) = OPERATOR_ACCOUNT;
        let rules = json!([{
            "subjects": [{ "kind": "ServiceAccount", "serviceAccount": { "namespace": namespace, "name": name } }],
            "resourceRules": [{
                "verbs": ["*"], "apiGroups": GROUPS, "resources": ["*"], "namespaces": ["*"], "clusterScope": true,
            }],
        }]);
        let level = json!({ "name": NAME });
        let spec =
            json!({ "matchingPrecedence": PRECEDENCE, "priorityLevelConfiguration": level, "rules": rules });
        create(&self.schemas, spec).await?;
        eventually("the API server has taken note", async || {
            let status = self.schemas.get(NAME).await?.status.unwrap_or_default();
            let mut conditions = status.conditions.into_iter().flatten();
            let noted = conditions.any(|condition| condition.status.as_deref() == Some("False"));
            ensure(noted, || "it has not".to_owned())
        })
        .await
    }

    pub(crate) async fn off(&self) -> Result<(), Failure> {
        delete(&self.schemas, NAME).await?;
        delete(&self.levels, NAME).await
    }
}

async fn create<K>(api: &Api<K>, spec: Value) -> Result<(), Failure>
where
    K: Clone + DeserializeOwned + Serialize + Debug,
{
    let object = serde_json::from_value(json!({ "metadata": { "name": NAME }, "spec": spec }));
    let object: K = object.map_err(kube::Error::SerdeError)?;
    api.create(&PostParams::default(), &object).await?;
    Ok(())
}

/// Deletes an object, if it is there.
pub(crate) async fn delete<K: Clone + DeserializeOwned + Debug>(
    api: &Api<K>,
    name: &str,
) -> Result<(), Failure> {
    match api.delete(name, &DeleteParams::default()).await {
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        outcome => outcome.map(drop).map_err(Failure::from),
    }
}

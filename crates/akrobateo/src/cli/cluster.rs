//! The state of a cluster at one moment, with the operator's decisions. Reads from the API server.

use std::sync::Arc;

use akrobateo_services::node_info::NodeInfo;
use akrobateo_services::spec::ServiceDefaults;
use api_client::connect;
use api_client::error_chain;
use api_client::{CallError, call};
use clap::ArgMatches;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Container;
use k8s_openapi::jiff::Timestamp;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};

use super::config_map_settings::add_config_map_settings;
use super::error::CliError;
use super::operator_config::merge_operator_config;
use super::service_report::ServiceReport;
use crate::cache::WatchScope;
use crate::decide::{AgentStates, decide, with_reported_conflicts};
use crate::kube_proxy::read_vip_danger;
use crate::metrics::Metrics;
use crate::planner::Planner;
use crate::settings::DEFAULT_OPERATOR_NAMESPACE;
use crate::settings::{OperatorConfig, ResolvedConfig};

/// The label of the operator's Deployment in `deploy/` and in the Helm chart.
const OPERATOR_SELECTOR: &str = "app.kubernetes.io/name=akrobateo";
/// The name of the operator's container in `deploy/` and in the Helm chart.
const OPERATOR_CONTAINER: &str = "akrobateo";

/// All Services and nodes, with the decisions of the operator in the cluster.
pub(super) struct Cluster {
    /// The name of the operator.
    pub(super) operator_instance: String,
    pub(super) service_reports: Vec<ServiceReport>,
    pub(super) nodes: Arc<Vec<NodeInfo>>,
    /// The node agents.
    pub(super) agents: AgentStates,
    pub(super) defaults: Arc<ServiceDefaults>,
    pub(super) now: Timestamp,
}

impl Cluster {
    /// Lists the objects that the operator watches, and makes the operator's decision for each Service.
    pub(super) async fn read(
        local_config: &OperatorConfig,
        operator_namespace: Option<&str>,
        matches: &ArgMatches,
    ) -> Result<Self, CliError> {
        let (client, pod_namespace) = connect(&local_config.connection).await?;
        let metrics = Metrics::new();
        let agent_namespace =
            operator_namespace.or(pod_namespace.as_deref()).unwrap_or(DEFAULT_OPERATOR_NAMESPACE);
        let agent_namespace = agent_namespace.to_owned();
        let operator = match (pod_namespace, operator_namespace) {
            // In the operator's pod this command has the same environment variables as the operator.
            (Some(_), None) => None,
            (_, namespace) => {
                let namespace = namespace.unwrap_or(DEFAULT_OPERATOR_NAMESPACE);
                find_operator(&client, namespace, &metrics).await
            }
        };
        let config = match operator {
            Some(operator) => operator.merge_config(matches)?,
            None => local_config.clone(),
        };
        let ResolvedConfig { proxy_config, mut defaults } = config.resolve();
        if defaults.must_detect_vip_danger() {
            defaults.vip_danger = detect_vip_danger(&client, &metrics).await;
        }
        let defaults = Arc::new(defaults);
        let scope = WatchScope {
            watch_namespace: config.watch_namespace(),
            operator_namespace: &agent_namespace,
            has_proxies: defaults.allows_dedicated_proxies,
        };
        let mut planner = Planner::list(&client, &scope, &proxy_config, defaults.clone(), &metrics).await?;
        let now = Timestamp::now();
        let service_reports: Vec<_> = planner
            .resync()
            .into_iter()
            .map(|key| {
                let state = planner.service_state(&key, now);
                let decision = decide(&proxy_config, &state, now);
                let decision = with_reported_conflicts(decision, state.service.as_deref());
                ServiceReport { key, state, decision }
            })
            .collect();
        let (nodes, agents) = (planner.nodes(), planner.agents(now));
        Ok(Self { operator_instance: proxy_config.instance, service_reports, nodes, agents, defaults, now })
    }
}

/// An operator that is deployed in the cluster.
struct DeployedOperator {
    /// `namespace/name` of its Deployment.
    deployment_name: String,
    container: Container,
}

impl DeployedOperator {
    /// Returns the configuration of the operator. The flags of this command override the configuration.
    fn merge_config(&self, command_line_matches: &ArgMatches) -> Result<OperatorConfig, CliError> {
        merge_operator_config(command_line_matches, &self.container).map_err(|error| {
            CliError::OperatorConfig {
                deployment_name: self.deployment_name.clone(),
                message: error.to_string(),
            }
        })
    }

    fn from_deployment(deployment: Deployment) -> Option<Self> {
        let name = format!("{}/{}", deployment.namespace().unwrap_or_default(), deployment.name_any());
        let containers = deployment.spec?.template.spec?.containers;
        let container = containers.into_iter().find(|container| container.name == OPERATOR_CONTAINER)?;
        Some(Self { deployment_name: name, container })
    }
}

/// Finds the operator in a namespace to which only administrators may write. In other namespaces tenants can forge a
/// Deployment. Prints which configuration the command uses.
async fn find_operator(client: &Client, namespace: &str, metrics: &Metrics) -> Option<DeployedOperator> {
    const FALLBACK_CONFIG_MESSAGE: &str = "using the flags and environment variables of this command";
    let mut operators = match list_operators(client, namespace, metrics).await {
        Ok(operators) => operators.into_iter(),
        Err(error) => {
            let error = error_chain(&error);
            eprintln!(
                "akrobateo: cannot read the Deployment of the operator in namespace {namespace}, {FALLBACK_CONFIG_MESSAGE}: {error}"
            );
            return None;
        }
    };
    let Some(mut operator) = operators.next() else {
        eprintln!(
            "akrobateo: found no Deployment with the label {OPERATOR_SELECTOR} in namespace {namespace}, {FALLBACK_CONFIG_MESSAGE}; \
             --operator-namespace selects another namespace"
        );
        return None;
    };
    let other_deployments: Vec<_> = operators.map(|other| other.deployment_name).collect();
    let ignored_deployments = if other_deployments.is_empty() {
        String::new()
    } else {
        format!("; ignored: {}", other_deployments.join(", "))
    };
    eprintln!(
        "akrobateo: using the configuration of Deployment {}{ignored_deployments}",
        operator.deployment_name
    );
    add_config_map_settings(&mut operator.container, client, namespace, metrics).await;
    Some(operator)
}

async fn list_operators(
    client: &Client,
    namespace: &str,
    metrics: &Metrics,
) -> Result<Vec<DeployedOperator>, CallError> {
    let api: Api<Deployment> = Api::namespaced(client.clone(), namespace);
    let params = ListParams::default().labels(OPERATOR_SELECTOR);
    let deployments = call(&metrics.api, "list", api.list(&params)).await?;
    Ok(deployments.items.into_iter().filter_map(DeployedOperator::from_deployment).collect())
}

/// Detects whether ipMode VIP is dangerous. If the user may not read the configuration of kube-proxy, the command
/// assumes that VIP is safe, because VIP is safe in most clusters.
async fn detect_vip_danger(client: &Client, metrics: &Metrics) -> Option<String> {
    match read_vip_danger(client, metrics).await {
        Ok(danger) => danger,
        Err(error) => {
            let error = error_chain(&error);
            eprintln!(
                "akrobateo: cannot read the mode of kube-proxy ({error}); using ipMode VIP; --ip-mode selects another ipMode"
            );
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use api_client::scripted_api::scripted_api;
    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn deployment_outside_the_operator_namespace_is_ignored() {
        let (client, api) = scripted_api();
        let deployment = |namespace: &str| {
            let container = json!({ "name": "akrobateo", "image": namespace });
            json!({
                "apiVersion": "apps/v1", "kind": "Deployment",
                "metadata": {
                    "name": "akrobateo", "namespace": namespace,
                    "labels": { "app.kubernetes.io/name": "akrobateo" },
                },
                "spec": { "selector": {}, "template": { "spec": { "containers": [container] } } },
            })
        };
        let server = tokio::spawn(api.serve_lists(vec![deployment("a-tenant"), deployment("kube-system")]));
        let metrics = Metrics::new();
        let operator = find_operator(&client, "kube-system", &metrics).await.unwrap();
        assert_eq!(operator.deployment_name, "kube-system/akrobateo");
        assert!(find_operator(&client, "elsewhere", &metrics).await.is_none());
        server.abort();
    }
}

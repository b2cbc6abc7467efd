//! The state of a cluster at one moment, with the operator's decisions. Reads from the API server.

use std::sync::Arc;

use clap::ArgMatches;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Container;
use k8s_openapi::jiff::Timestamp;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};

use super::error::CliError;
use super::operator_config::merge_operator_config;
use super::service_report::ServiceReport;
use crate::call::{CallError, call};
use crate::client::connect;
use crate::decide::decide;
use crate::error_chain::error_chain;
use crate::kube_proxy::read_ip_mode;
use crate::metrics::Metrics;
use crate::node_info::NodeInfo;
use crate::planner::Planner;
use crate::settings::{OperatorConfig, ResolvedConfig};
use crate::spec::{IpMode, ServiceDefaults};

/// The label of the operator's Deployment in `deploy/` and in the Helm chart.
const OPERATOR_SELECTOR: &str = "app.kubernetes.io/name=akrobateo";
/// The name of the operator's container in `deploy/` and in the Helm chart.
const OPERATOR_CONTAINER: &str = "akrobateo";

/// All Services and nodes, with the decisions of the operator in the cluster.
pub(super) struct Cluster {
    pub(super) reports: Vec<ServiceReport>,
    pub(super) nodes: Arc<Vec<NodeInfo>>,
    pub(super) defaults: Arc<ServiceDefaults>,
    pub(super) now: Timestamp,
}

impl Cluster {
    /// Lists the objects that the operator watches, and repeats the operator's decision for each Service.
    pub(super) async fn read(local: &OperatorConfig, matches: &ArgMatches) -> Result<Self, CliError> {
        let (client, default_namespace) = connect(local).await?;
        let metrics = Metrics::new();
        let (config, own_namespace) = match find_operator(&client, &metrics).await {
            Some(operator) => (operator.merge_config(matches)?, operator.namespace),
            None => (local.clone(), default_namespace),
        };
        let ip_mode = match config.ip_mode() {
            Some(ip_mode) => ip_mode,
            None => detect_ip_mode(&client, &metrics).await,
        };
        let ResolvedConfig { proxy_config, defaults } = config.resolve(&own_namespace, ip_mode);
        let (defaults, watched) = (Arc::new(defaults), config.watch_namespace());
        let mut planner =
            Planner::list(&client, watched, &proxy_config.proxy_namespace, defaults.clone(), &metrics)
                .await?;
        let now = Timestamp::now();
        let reports: Vec<_> = planner
            .resync()
            .into_iter()
            .map(|key| {
                let state = planner.service_state(&key, now);
                let decision = decide(&proxy_config, &defaults, &state, now);
                ServiceReport { key, state, decision }
            })
            .collect();
        let nodes = reports.first().map(|report| report.state.nodes.clone()).unwrap_or_default();
        Ok(Self { reports, nodes, defaults, now })
    }
}

/// An operator that is deployed in the cluster.
struct DeployedOperator {
    /// `namespace/name` of its Deployment.
    deployment: String,
    namespace: String,
    container: Container,
}

impl DeployedOperator {
    /// Returns the operator's configuration; the local flags override it.
    fn merge_config(&self, local: &ArgMatches) -> Result<OperatorConfig, CliError> {
        merge_operator_config(local, &self.container).map_err(|error| CliError::OperatorConfig {
            deployment: self.deployment.clone(),
            message: error.to_string(),
        })
    }

    fn from_deployment(deployment: Deployment) -> Option<Self> {
        let namespace = deployment.namespace().unwrap_or_default();
        let name = format!("{namespace}/{}", deployment.name_any());
        let containers = deployment.spec?.template.spec?.containers;
        let container = containers.into_iter().find(|container| container.name == OPERATOR_CONTAINER)?;
        Some(Self { deployment: name, namespace, container })
    }
}

/// Finds the operator in the cluster. If the cluster has no operator, prints a warning. The command then uses its own
/// configuration.
async fn find_operator(client: &Client, metrics: &Metrics) -> Option<DeployedOperator> {
    const FALLBACK_CONFIG_MESSAGE: &str = "using the flags and environment variables of this command";
    let mut operators = match list_operators(client, metrics).await {
        Ok(operators) => operators.into_iter(),
        Err(error) => {
            let error = error_chain(&error);
            eprintln!(
                "akrobateo: cannot read the Deployment of the operator ({error}); {FALLBACK_CONFIG_MESSAGE}"
            );
            return None;
        }
    };
    let Some(operator) = operators.next() else {
        eprintln!(
            "akrobateo: found no Deployment with the label {OPERATOR_SELECTOR}; {FALLBACK_CONFIG_MESSAGE}"
        );
        return None;
    };
    let other_deployments: Vec<_> = operators.map(|other| other.deployment).collect();
    if !other_deployments.is_empty() {
        eprintln!(
            "akrobateo: found several operators, using the configuration of Deployment {}; ignored: {}",
            operator.deployment,
            other_deployments.join(", ")
        );
    }
    Some(operator)
}

async fn list_operators(client: &Client, metrics: &Metrics) -> Result<Vec<DeployedOperator>, CallError> {
    let api: Api<Deployment> = Api::all(client.clone());
    let params = ListParams::default().labels(OPERATOR_SELECTOR);
    let deployments = call(metrics, "list", api.list(&params)).await?;
    Ok(deployments.items.into_iter().filter_map(DeployedOperator::from_deployment).collect())
}

/// Detects the ipMode for `--ip-mode auto`. If the user lacks permission to read the configuration of kube-proxy, the
/// result is VIP, which is right for most clusters.
async fn detect_ip_mode(client: &Client, metrics: &Metrics) -> IpMode {
    match read_ip_mode(client, metrics).await {
        Ok(ip_mode) => ip_mode,
        Err(error) => {
            let error = error_chain(&error);
            eprintln!(
                "akrobateo: cannot read the mode of kube-proxy ({error}); using ipMode VIP; --ip-mode selects another"
            );
            IpMode::Vip
        }
    }
}

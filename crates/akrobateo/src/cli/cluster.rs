//! One look at a cluster, through the views and decisions of the operator. Does I/O.

use std::sync::Arc;

use clap::ArgMatches;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Container;
use k8s_openapi::jiff::Timestamp;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};

use super::error::CliError;
use super::operator_config::adopt;
use super::service_report::ServiceReport;
use crate::call::{CallError, call};
use crate::client::connect;
use crate::decide::{Placement, ProxyConfig, decide};
use crate::kube_proxy::read_ip_mode;
use crate::metrics::Metrics;
use crate::node_info::NodeInfo;
use crate::planner::Planner;
use crate::settings::{IpModeSetting, OperatorConfig};
use crate::spec::{IpMode, ServiceDefaults};

/// The label and the container of operators, as both ways to deploy it name them.
const OPERATORS: &str = "app.kubernetes.io/name=akrobateo";
const CONTAINER: &str = "akrobateo";

/// Everything that is looked after, as the operator would see it.
pub(super) struct Cluster {
    pub(super) subjects: Vec<ServiceReport>,
    pub(super) nodes: Arc<Vec<NodeInfo>>,
    pub(super) defaults: Arc<ServiceDefaults>,
    pub(super) now: Timestamp,
}

/// Looks at everything once.
pub(super) async fn read(here: &OperatorConfig, matches: &ArgMatches) -> Result<Cluster, CliError> {
    let (client, mut namespace) = connect(here).await?;
    let metrics = Metrics::new();
    let mut settings = here.clone();
    match operators(&client, &metrics).await {
        Ok(found) => {
            if found.len() > 1 {
                let names: Vec<_> = found.iter().map(|found| found.name.as_str()).collect();
                eprintln!("akrobateo: several operators ({}); answering as the first", names.join(", "));
            }
            if let Some(Operator { name, namespace: its, container }) = found.into_iter().next() {
                let wrong =
                    |error: clap::Error| CliError::OperatorSettings { name, message: error.to_string() };
                settings = adopt(matches, &container).map_err(wrong)?;
                namespace = its;
            } else {
                eprintln!(
                    "akrobateo: no operator is deployed in this cluster; answering as one with the settings here"
                );
            }
        }
        Err(error) => {
            eprintln!("akrobateo: cannot read the operator's settings, answering with those here: {error}");
        }
    }
    let placement = settings.lb_namespace.as_ref().map(|chosen| chosen.0.clone());
    let placement = placement.unwrap_or(Placement::Shared(namespace));
    let defaults = Arc::new(settings.defaults(ip_mode(&client, &settings, &metrics).await));
    let watched = settings.watched();
    let mut world = Planner::list(&client, watched, &placement, defaults.clone(), &metrics).await?;
    let proxies = ProxyConfig { placement, image: settings.lb_image.clone() };
    let now = Timestamp::now();
    let subjects: Vec<_> = world
        .resync()
        .into_iter()
        .map(|key| {
            let observed = world.service_state(&key, now);
            let decision = decide(&proxies, &defaults, &observed, now);
            ServiceReport { key, observed, decision }
        })
        .collect();
    let nodes = subjects.first().map(|subject| subject.observed.nodes.clone()).unwrap_or_default();
    Ok(Cluster { subjects, nodes, defaults, now })
}

/// An operator that is deployed.
struct Operator {
    name: String,
    namespace: String,
    container: Container,
}

async fn operators(client: &Client, metrics: &Metrics) -> Result<Vec<Operator>, CallError> {
    let api: Api<Deployment> = Api::all(client.clone());
    let params = ListParams::default().labels(OPERATORS);
    let deployments = call(metrics, "list", api.list(&params)).await?;
    let operator = |deployment: Deployment| {
        let namespace = deployment.namespace().unwrap_or_default();
        let name = format!("{namespace}/{}", deployment.name_any());
        let containers = deployment.spec?.template.spec?.containers;
        let container = containers.into_iter().find(|container| container.name == CONTAINER)?;
        Some(Operator { name, namespace, container })
    };
    Ok(deployments.items.into_iter().filter_map(operator).collect())
}

/// Who may not read kube-proxy's configuration is told what holds nearly everywhere.
async fn ip_mode(client: &Client, settings: &OperatorConfig, metrics: &Metrics) -> IpMode {
    if settings.ip_mode != IpModeSetting::Auto {
        return IpMode::Vip;
    }
    match read_ip_mode(client, metrics).await {
        Ok(mode) => mode,
        Err(error) => {
            eprintln!("akrobateo: cannot read kube-proxy's mode, taking ipMode VIP for the default: {error}");
            IpMode::Vip
        }
    }
}

//! The workload that runs a Service's proxies: a DaemonSet, or a Deployment. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use akrobateo_core::{digest, labels, names};
use k8s_openapi::api::apps::v1::{
    DaemonSet, DaemonSetSpec, Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment,
};
use k8s_openapi::api::core::v1::{Pod, PodSpec, PodTemplateSpec, Service, TopologySpreadConstraint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use k8s_openapi::serde::Serialize;
use kube::{Resource, ResourceExt};

use super::foreign_fields::foreign_fields;
use super::matching::matches_desired;
use super::pod::{self, ProxyRole};
use crate::key::ServiceKey;
use crate::spec::Workload as Kind;
use crate::spec::{HostPort, LoadBalancerSpec};

/// How long a workload may take to make its first pod.
const POD_CREATION_TIMEOUT: SignedDuration = SignedDuration::from_secs(15);

/// The annotation with the digest of the spec that was asked for: a field that is asked for no longer leaves no trace in
/// what is asked for now.
const SPEC_DIGEST: &str = "akrobateo.io/spec-digest";

/// The arguments that say how a proxy forwards.
const DATA_PATH_ARGS: [&str; 2] = ["--data-path=", "--proxy-protocol="];

/// What all proxies have in common.
#[derive(Clone, Debug)]
pub(crate) struct ProxyConfig {
    pub(crate) placement: Placement,
    /// The data plane's image.
    pub(crate) image: String,
}

/// The namespace that proxies run in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Placement {
    /// One for all.
    Shared(String),
    /// Each next to its Service, which owns it.
    ServiceNamespace,
}

impl fmt::Display for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Shared(namespace) => namespace,
            Self::ServiceNamespace => "@service",
        })
    }
}

/// A workload, as it is or as it should be.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Workload {
    DaemonSet(Box<DaemonSet>),
    Deployment(Box<Deployment>),
}

impl Workload {
    /// What runs the proxies for a Service's wish.
    pub(super) fn of(
        settings: &ProxyConfig,
        service: &Service,
        wish: &LoadBalancerSpec,
        excluded_nodes: &BTreeSet<String>,
        path: ProxyRole,
    ) -> Self {
        let ServiceKey { namespace, name } = ServiceKey::of(service);
        let labels = labels::proxy_labels(&namespace, &name);
        let mut template = PodTemplateSpec {
            metadata: Some(ObjectMeta { labels: Some(labels.clone()), ..ObjectMeta::default() }),
            spec: Some(pod::spec(&settings.image, wish, excluded_nodes, path)),
        };
        let selector = LabelSelector { match_labels: Some(labels.clone()), ..LabelSelector::default() };
        match wish.workload {
            Kind::DaemonSet => {
                let spec = DaemonSetSpec { selector, template, ..DaemonSetSpec::default() };
                Self::DaemonSet(Box::new(DaemonSet {
                    metadata: metadata(settings, service, labels, &spec),
                    spec: Some(spec),
                    status: None,
                }))
            }
            Kind::Deployment { replicas } => {
                if let Some(spec) = &mut template.spec {
                    spec.topology_spread_constraints = Some(vec![spread(&selector)]);
                }
                let spec = DeploymentSpec {
                    replicas: Some(replicas.into()),
                    selector,
                    strategy: Some(one_by_one()),
                    template,
                    ..DeploymentSpec::default()
                };
                Self::Deployment(Box::new(Deployment {
                    metadata: metadata(settings, service, labels, &spec),
                    spec: Some(spec),
                    status: None,
                }))
            }
        }
    }

    pub(crate) fn metadata(&self) -> &ObjectMeta {
        match self {
            Self::DaemonSet(daemonset) => &daemonset.metadata,
            Self::Deployment(deployment) => &deployment.metadata,
        }
    }

    /// From when on it is strange that it has no pods, if it has none, and how kubectl names it.
    pub(super) fn stuck(&self, pods: &[Arc<Pod>]) -> Option<(Timestamp, String)> {
        let metadata = self.metadata();
        let since =
            metadata.creation_timestamp.as_ref().filter(|_| pods.is_empty())?.0 + POD_CREATION_TIMEOUT;
        let kind = match self {
            Self::DaemonSet(_) => "daemonset",
            Self::Deployment(_) => "deployment",
        };
        let namespace = metadata.namespace.as_deref().unwrap_or_default();
        Some((
            since,
            format!("{kind} --namespace {namespace} {}", metadata.name.as_deref().unwrap_or_default()),
        ))
    }

    /// Whether it is the same object as `other`, in whatever state.
    pub(super) fn same_identity(&self, other: &Self) -> bool {
        let same_kind = matches!(
            (self, other),
            (Self::DaemonSet(_), Self::DaemonSet(_)) | (Self::Deployment(_), Self::Deployment(_))
        );
        let (one, other) = (self.metadata(), other.metadata());
        same_kind && one.name == other.name && one.namespace == other.namespace
    }

    /// Whether somebody has added fields that applying it again would leave.
    pub(super) fn has_foreign_fields(&self) -> bool {
        !foreign_fields(self.metadata().managed_fields.clone().unwrap_or_default()).is_empty()
    }

    /// Whether it already is as `desired` says.
    pub(super) fn matches(&self, desired: &Self) -> bool {
        match (self, desired) {
            (Self::DaemonSet(is), Self::DaemonSet(desired)) => is_covered(is, desired),
            (Self::Deployment(is), Self::Deployment(desired)) => is_covered(is, desired),
            _ => false,
        }
    }

    fn pod_spec(&self) -> Option<&PodSpec> {
        let template = match self {
            Self::DaemonSet(daemonset) => &daemonset.spec.as_ref()?.template,
            Self::Deployment(deployment) => &deployment.spec.as_ref()?.template,
        };
        template.spec.as_ref()
    }

    /// How its pods forward, as far as their arguments tell: the parts that are written only where they are not the
    /// default.
    pub(super) fn data_path(&self) -> Vec<String> {
        let is_about_it = |arg: &String| DATA_PATH_ARGS.iter().any(|name| arg.starts_with(name));
        self.arguments().into_iter().filter(is_about_it).collect()
    }

    /// What its pods are told to do.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let container = self.pod_spec().and_then(|spec| spec.containers.first());
        container.and_then(|container| container.args.clone()).unwrap_or_default()
    }

    /// The ports that its pods hold on their nodes.
    pub(crate) fn host_ports(&self) -> BTreeSet<HostPort> {
        let containers = self.pod_spec().map(|spec| &spec.containers);
        let ports = containers.into_iter().flatten().flat_map(|container| container.ports.iter().flatten());
        ports
            .filter_map(|port| {
                let protocol = port.protocol.as_deref().unwrap_or("TCP").parse().ok()?;
                Some((protocol, u16::try_from(port.host_port?).ok()?))
            })
            .collect()
    }
}

/// What cannot be compared is not covered: the API server will say what is wrong with it.
fn is_covered(is: &impl Serialize, desired: &impl Serialize) -> bool {
    match (serde_json::to_value(is), serde_json::to_value(desired)) {
        (Ok(is), Ok(desired)) => matches_desired(&is, &desired),
        _ => false,
    }
}

/// What cannot be serialized cannot be applied either, which will say why.
fn digest_of(spec: &impl Serialize) -> String {
    serde_json::to_string(spec).map(|spec| digest(&spec)).unwrap_or_default()
}

fn metadata(
    settings: &ProxyConfig,
    service: &Service,
    labels: BTreeMap<String, String>,
    spec: &impl Serialize,
) -> ObjectMeta {
    let key = ServiceKey::of(service);
    let (name, namespace, owner) = match &settings.placement {
        Placement::Shared(namespace) => (names::proxy(&key.namespace, &key.name), namespace.clone(), None),
        // Kubernetes collects what is owned within one namespace.
        Placement::ServiceNamespace => {
            (names::proxy_in_service_namespace(&key.name), key.namespace.clone(), Some(owner(service)))
        }
    };
    ObjectMeta {
        name: Some(name),
        namespace: Some(namespace),
        labels: Some(labels),
        annotations: Some(BTreeMap::from([(SPEC_DIGEST.to_owned(), digest_of(spec))])),
        owner_references: owner.map(|owner| vec![owner]),
        ..ObjectMeta::default()
    }
}

fn owner(service: &Service) -> OwnerReference {
    OwnerReference {
        api_version: Service::api_version(&()).into_owned(),
        kind: Service::kind(&()).into_owned(),
        name: service.name_any(),
        uid: service.uid().unwrap_or_default(),
        controller: Some(true),
        ..OwnerReference::default()
    }
}

/// Each node's ports can be held once, so a new pod may have to wait for an old one's node.
fn one_by_one() -> DeploymentStrategy {
    DeploymentStrategy {
        type_: Some("RollingUpdate".to_owned()),
        rolling_update: Some(RollingUpdateDeployment {
            max_surge: Some(IntOrString::Int(0)),
            max_unavailable: Some(IntOrString::Int(1)),
        }),
    }
}

/// Over zones, where there are any; hostPorts spread the pods over nodes by themselves.
fn spread(selector: &LabelSelector) -> TopologySpreadConstraint {
    TopologySpreadConstraint {
        label_selector: Some(selector.clone()),
        max_skew: 1,
        topology_key: "topology.kubernetes.io/zone".to_owned(),
        when_unsatisfiable: "ScheduleAnyway".to_owned(),
        ..TopologySpreadConstraint::default()
    }
}

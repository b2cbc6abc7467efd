//! The workload that runs a Service's proxies: a DaemonSet or a Deployment. Pure.

use std::collections::{BTreeMap, BTreeSet};

use akrobateo_core::{HostPort, labels, names, probe};
use akrobateo_services::key::ServiceKey;
use akrobateo_services::spec::{LoadBalancerSpec, ProxyWorkload};
use k8s_openapi::api::apps::v1::{
    DaemonSet, DaemonSetSpec, DaemonSetUpdateStrategy, Deployment, DeploymentSpec, DeploymentStrategy,
    RollingUpdateDeployment,
};
use k8s_openapi::api::core::v1::{PodSpec, PodTemplateSpec, Service, TopologySpreadConstraint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{
    LabelSelector, ManagedFieldsEntry, ObjectMeta, OwnerReference,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use k8s_openapi::serde::Serialize;
use kube::{Resource, ResourceExt};

use super::drift::{SPEC_DIGEST_ANNOTATION, added_fields, matches_desired, spec_digest};
use super::pod::{PodPlacement, ProxyRole, build_pod_spec};
use super::pod_digest::{FORWARDING_DIGEST_ANNOTATION, forwarding_digest};
use super::pod_status::spec_host_ports;
use super::proxy_config::{ProxyConfig, ProxyNamespace};

/// The annotation with the UID of the Service for which the operator applied the workload.
const SERVICE_UID_ANNOTATION: &str = "akrobateo.io/service-uid";
/// The labels that exclude a pod from service meshes. A mesh's sidecar would intercept the packets that the proxy
/// forwards.
const MESH_LABELS: [(&str, &str); 2] =
    [("sidecar.istio.io/inject", "false"), ("kuma.io/sidecar-injection", "disabled")];
/// The annotations that exclude a pod from other service meshes.
const MESH_ANNOTATIONS: [(&str, &str); 2] =
    [("linkerd.io/inject", "disabled"), ("consul.hashicorp.com/connect-inject", "false")];

/// The prefixes of the arguments that select the data path.
const DATA_PATH_ARGUMENTS: [&str; 2] = ["--data-path=", "--proxy-protocol="];

/// An existing workload or the desired workload.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Workload {
    DaemonSet(Box<DaemonSet>),
    Deployment(Box<Deployment>),
}

/// The number of a Deployment's pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct DeploymentScale {
    pub(super) replicas: i32,
    /// The number of pods that may be unavailable during a rollout.
    pub(super) max_unavailable: i32,
}

impl Workload {
    /// Returns the desired workload of a Service, with its pods on the nodes of `placement`.
    pub(super) fn new(
        config: &ProxyConfig,
        service: &Service,
        spec: &LoadBalancerSpec,
        kind: ProxyWorkload,
        placement: PodPlacement,
        role: ProxyRole,
        scale: DeploymentScale,
    ) -> Self {
        let ServiceKey { namespace, name } = ServiceKey::from_service(service);
        let labels = labels::proxy_labels(&config.instance, &namespace, &name);
        let mut pod_spec = build_pod_spec(&config.image, spec, placement, role);
        let pod_metadata = build_template_metadata(&labels, &pod_spec, nondefault_probe_port(spec, role));
        let selector = LabelSelector { match_labels: Some(labels.clone()), ..LabelSelector::default() };
        match kind {
            ProxyWorkload::DaemonSet => {
                let template = PodTemplateSpec { metadata: Some(pod_metadata), spec: Some(pod_spec) };
                let spec = DaemonSetSpec {
                    selector,
                    template,
                    update_strategy: Some(build_on_delete_strategy()),
                    ..DaemonSetSpec::default()
                };
                Self::DaemonSet(Box::new(DaemonSet {
                    metadata: build_metadata(config, service, labels, &spec),
                    spec: Some(spec),
                    status: None,
                }))
            }
            ProxyWorkload::Deployment { .. } => {
                pod_spec.topology_spread_constraints = Some(vec![build_zone_spread_constraint(&selector)]);
                let template = PodTemplateSpec { metadata: Some(pod_metadata), spec: Some(pod_spec) };
                let spec = DeploymentSpec {
                    replicas: Some(scale.replicas),
                    selector,
                    strategy: Some(build_rolling_update_strategy(scale.max_unavailable)),
                    template,
                    ..DeploymentSpec::default()
                };
                Self::Deployment(Box::new(Deployment {
                    metadata: build_metadata(config, service, labels, &spec),
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

    /// Returns true if the operator applied the workload for this Service. Returns false if the workload is for a
    /// deleted Service with the same name. Its proxies forward to the cluster IP of the deleted Service, and another
    /// Service may have this cluster IP now.
    pub(crate) fn belongs_to(&self, service: &Service) -> bool {
        let metadata = self.metadata();
        let annotations = metadata.annotations.as_ref();
        let recorded_uid = annotations.and_then(|annotations| annotations.get(SERVICE_UID_ANNOTATION));
        recorded_uid.is_some_and(|uid| Some(uid) == service.metadata.uid.as_ref())
    }

    /// Returns the kind, the namespace and the name.
    pub(crate) fn full_name(&self) -> String {
        let kind = match self {
            Self::DaemonSet(_) => "DaemonSet",
            Self::Deployment(_) => "Deployment",
        };
        let (namespace, name) = self.namespace_and_name();
        format!("{kind} {namespace}/{name}")
    }

    /// Returns the arguments that identify the workload in kubectl commands.
    pub(super) fn kubectl_arguments(&self) -> String {
        let kind = match self {
            Self::DaemonSet(_) => "daemonset",
            Self::Deployment(_) => "deployment",
        };
        let (namespace, name) = self.namespace_and_name();
        format!("{kind} --namespace {namespace} {name}")
    }

    fn namespace_and_name(&self) -> (&str, &str) {
        let ObjectMeta { namespace, name, .. } = self.metadata();
        (namespace.as_deref().unwrap_or_default(), name.as_deref().unwrap_or_default())
    }

    /// Returns true if `other` has the same kind, namespace and name.
    pub(super) fn has_same_identity(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
            && self.namespace_and_name() == other.namespace_and_name()
    }

    /// Returns true if another field manager added fields. An apply by the operator would not remove these fields.
    pub(super) fn has_added_fields(&self) -> bool {
        !self.added_fields().is_empty()
    }

    /// Returns the fields that other field managers added.
    pub(super) fn added_fields(&self) -> Vec<ManagedFieldsEntry> {
        let metadata = self.metadata();
        let operator_instance = metadata.labels.as_ref().and_then(|labels| labels.get(labels::MANAGED_BY));
        let entries = metadata.managed_fields.clone().unwrap_or_default();
        added_fields(operator_instance.map_or("", String::as_str), entries)
    }

    /// Returns the digest of the desired spec.
    pub(super) fn spec_digest(&self) -> Option<&str> {
        self.metadata().annotations.as_ref()?.get(SPEC_DIGEST_ANNOTATION).map(String::as_str)
    }

    /// Returns true if an apply of `desired` would change nothing.
    pub(super) fn matches(&self, desired: &Self) -> bool {
        match (self, desired) {
            (Self::DaemonSet(existing), Self::DaemonSet(desired)) => matches_desired(&**existing, &**desired),
            (Self::Deployment(existing), Self::Deployment(desired)) => {
                matches_desired(&**existing, &**desired)
            }
            _ => false,
        }
    }

    /// Returns true if an apply of `desired` would change nothing in the pod template.
    pub(super) fn has_same_template(&self, desired: &Self) -> bool {
        let templates = self.pod_template().zip(desired.pod_template());
        templates.is_some_and(|(existing, desired)| matches_desired(existing, desired))
    }

    pub(super) fn pod_template(&self) -> Option<&PodTemplateSpec> {
        match self {
            Self::DaemonSet(daemonset) => Some(&daemonset.spec.as_ref()?.template),
            Self::Deployment(deployment) => Some(&deployment.spec.as_ref()?.template),
        }
    }

    pub(super) fn pod_spec(&self) -> Option<&PodSpec> {
        self.pod_template()?.spec.as_ref()
    }

    /// Returns the number of pods that may be unavailable during a rollout of a Deployment.
    pub(super) fn max_unavailable(&self) -> Option<usize> {
        let Self::Deployment(deployment) = self else { return None };
        let strategy = deployment.spec.as_ref()?.strategy.as_ref()?.rolling_update.as_ref()?;
        match strategy.max_unavailable.as_ref()? {
            IntOrString::Int(count) => usize::try_from(*count).ok(),
            IntOrString::String(_) => None,
        }
    }

    /// Returns true if the workload's controller has observed the current spec. A controller that has not observed the
    /// current spec may create pods from an earlier spec.
    pub(super) fn is_observed_by_controller(&self) -> bool {
        let observed_generation = match self {
            Self::DaemonSet(daemonset) => {
                daemonset.status.as_ref().and_then(|status| status.observed_generation)
            }
            Self::Deployment(deployment) => {
                deployment.status.as_ref().and_then(|status| status.observed_generation)
            }
        };
        observed_generation >= self.metadata().generation
    }

    /// Returns true if Kubernetes reports that the rollout of a Deployment makes no progress.
    pub(super) fn is_rollout_stuck(&self) -> bool {
        let Self::Deployment(deployment) = self else { return false };
        let mut conditions = deployment.status.iter().flat_map(|status| status.conditions.iter().flatten());
        conditions.any(|condition| condition.type_ == "Progressing" && condition.status == "False")
    }

    /// Returns the arguments of the pods that select the data path. Returns no arguments if the pods use the default
    /// data path.
    pub(super) fn data_path_arguments(&self) -> Vec<String> {
        let is_data_path_argument =
            |argument: &String| DATA_PATH_ARGUMENTS.iter().any(|prefix| argument.starts_with(prefix));
        self.arguments().into_iter().filter(is_data_path_argument).collect()
    }

    /// Returns the arguments of the workload's pods.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let container = self.pod_spec().and_then(|spec| spec.containers.first());
        container.and_then(|container| container.args.clone()).unwrap_or_default()
    }

    /// Returns true if the pods only reserve the hostPorts.
    pub(super) fn only_reserves_ports(&self) -> bool {
        self.pod_spec().is_some_and(|spec| spec.host_network == Some(true))
    }

    /// Returns the hostPorts of the pods.
    pub(crate) fn host_ports(&self) -> BTreeSet<HostPort> {
        self.pod_spec().map(spec_host_ports).unwrap_or_default()
    }
}

fn build_metadata(
    config: &ProxyConfig,
    service: &Service,
    labels: BTreeMap<String, String>,
    spec: &impl Serialize,
) -> ObjectMeta {
    let key = ServiceKey::from_service(service);
    let (name, namespace, owner) = match &config.proxy_namespace {
        ProxyNamespace::SharedNamespace(namespace) => {
            (names::proxy_name(&config.instance, &key.namespace, &key.name), namespace.clone(), None)
        }
        // The garbage collector follows owner references only within one namespace.
        ProxyNamespace::ServiceNamespace => (
            names::proxy_name_in_service_namespace(&config.instance, &key.name),
            key.namespace.clone(),
            Some(build_owner_reference(service)),
        ),
    };
    ObjectMeta {
        name: Some(name),
        namespace: Some(namespace),
        labels: Some(labels),
        annotations: Some(BTreeMap::from([
            (SPEC_DIGEST_ANNOTATION.to_owned(), spec_digest(spec)),
            (SERVICE_UID_ANNOTATION.to_owned(), service.uid().unwrap_or_default()),
        ])),
        owner_references: owner.map(|owner| vec![owner]),
        ..ObjectMeta::default()
    }
}

/// Returns the probe port if the pods cannot use the preferred probe port, because the Service uses this port. Returns
/// `None` if the pods use the preferred probe port.
fn nondefault_probe_port(spec: &LoadBalancerSpec, role: ProxyRole) -> Option<u16> {
    let port = spec.proxy_args.probe_port;
    (role == ProxyRole::Forward && port != probe::PREFERRED_PROBE_PORT).then_some(port)
}

fn build_template_metadata(
    labels: &BTreeMap<String, String>,
    pod_spec: &PodSpec,
    nondefault_probe_port: Option<u16>,
) -> ObjectMeta {
    let build_entry = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
    let probe_port = nondefault_probe_port.map(|port| (labels::PROBE_PORT.to_owned(), port.to_string()));
    let digest = (FORWARDING_DIGEST_ANNOTATION.to_owned(), forwarding_digest(pod_spec));
    ObjectMeta {
        labels: Some(
            labels.clone().into_iter().chain(MESH_LABELS.map(build_entry)).chain(probe_port).collect(),
        ),
        annotations: Some(MESH_ANNOTATIONS.map(build_entry).into_iter().chain([digest]).collect()),
        ..ObjectMeta::default()
    }
}

fn build_owner_reference(service: &Service) -> OwnerReference {
    OwnerReference {
        api_version: Service::api_version(&()).into_owned(),
        kind: Service::kind(&()).into_owned(),
        name: service.name_any(),
        uid: service.uid().unwrap_or_default(),
        controller: Some(true),
        ..OwnerReference::default()
    }
}

/// Returns the update strategy with which the operator deletes the outdated pods itself. With `RollingUpdate`,
/// Kubernetes would replace all pods even if only the placement has changed, and would wait for nodes that are not
/// available.
fn build_on_delete_strategy() -> DaemonSetUpdateStrategy {
    DaemonSetUpdateStrategy { type_: Some("OnDelete".to_owned()), rolling_update: None }
}

/// Returns the strategy with which the Deployment controller deletes a pod before it creates the new pod. Two pods
/// cannot use the same hostPorts of a node.
fn build_rolling_update_strategy(max_unavailable: i32) -> DeploymentStrategy {
    DeploymentStrategy {
        type_: Some("RollingUpdate".to_owned()),
        rolling_update: Some(RollingUpdateDeployment {
            max_surge: Some(IntOrString::Int(0)),
            max_unavailable: Some(IntOrString::Int(max_unavailable)),
        }),
    }
}

/// Returns a constraint that spreads the pods over zones if nodes have the zone label. The hostPorts already spread the
/// pods over nodes.
fn build_zone_spread_constraint(selector: &LabelSelector) -> TopologySpreadConstraint {
    TopologySpreadConstraint {
        label_selector: Some(selector.clone()),
        max_skew: 1,
        topology_key: "topology.kubernetes.io/zone".to_owned(),
        when_unsatisfiable: "ScheduleAnyway".to_owned(),
        ..TopologySpreadConstraint::default()
    }
}

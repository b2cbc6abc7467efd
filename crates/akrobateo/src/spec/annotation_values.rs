//! The values of a Service's annotations, except those of the data path. Pure.

use akrobateo_core::{DataPath, annotations, dns1123};
use k8s_openapi::api::core::v1::{Service, Toleration};

use super::annotation::annotation_or_default;
use super::defaults::ServiceDefaults;
use super::error::SpecError;
use super::ip_mode::IpMode;
use super::node_selector::{self, Requirement};
use super::tolerations;
use super::workload_spec::{WorkloadKind, WorkloadSpec};
use crate::address_type::AddressType;

/// The maximum number of replicas of a Deployment. Each replica needs a node of its own.
const MAX_REPLICAS: u16 = 1000;

pub(super) fn node_selector(
    service: &Service,
    defaults: &ServiceDefaults,
) -> Result<Vec<Requirement>, SpecError> {
    annotation_or_default(
        service,
        annotations::NODE_SELECTOR,
        &defaults.requirements,
        node_selector::ALLOWED_VALUES,
        node_selector::parse,
    )
}

pub(super) fn tolerations(
    service: &Service,
    defaults: &ServiceDefaults,
) -> Result<Vec<Toleration>, SpecError> {
    annotation_or_default(
        service,
        annotations::TOLERATIONS,
        &defaults.tolerations,
        tolerations::ALLOWED_VALUES,
        tolerations::parse,
    )
}

pub(super) fn workload(service: &Service, defaults: &ServiceDefaults) -> Result<WorkloadSpec, SpecError> {
    let parse_kind = |text: &str| match text {
        "DaemonSet" => Ok(WorkloadKind::DaemonSet),
        "Deployment" => Ok(WorkloadKind::Deployment),
        _ => Err("unknown kind of workload"),
    };
    let parse_replicas = |text: &str| match text.parse() {
        Ok(replicas) if (1..=MAX_REPLICAS).contains(&replicas) => Ok(replicas),
        Ok(_) => Err("out of range"),
        Err(_) => Err("not a number of replicas"),
    };
    let kind = annotation_or_default(
        service,
        annotations::WORKLOAD,
        &defaults.workload,
        "DaemonSet, Deployment",
        parse_kind,
    )?;
    let replicas = annotation_or_default(
        service,
        annotations::REPLICAS,
        &defaults.replicas,
        &format!("a number from 1 to {MAX_REPLICAS}"),
        parse_replicas,
    )?;
    Ok(match kind {
        WorkloadKind::DaemonSet => WorkloadSpec::DaemonSet,
        WorkloadKind::Deployment => WorkloadSpec::Deployment { replicas },
    })
}

pub(super) fn address_types(
    service: &Service,
    defaults: &ServiceDefaults,
) -> Result<Vec<AddressType>, SpecError> {
    let parse_type =
        |text: &str| AddressType::parse(text.trim()).ok_or_else(|| format!("unknown address type {text:?}"));
    annotation_or_default(
        service,
        annotations::ADDRESS_TYPES,
        &defaults.address_types,
        "ExternalIP, InternalIP, or both in order of preference, for example InternalIP,ExternalIP",
        |text| text.split(',').map(parse_type).collect::<Result<_, _>>(),
    )
}

/// Returns the ipMode. In userspace the ipMode is always Proxy: if it were VIP, kube-proxy would answer instead of the
/// proxies.
pub(super) fn ip_mode(
    service: &Service,
    defaults: &ServiceDefaults,
    data_path: DataPath,
) -> Result<IpMode, SpecError> {
    let parse = |text: &str| IpMode::parse(text).ok_or("unknown ipMode");
    match data_path {
        DataPath::Kernel => {
            annotation_or_default(service, annotations::IP_MODE, &defaults.ip_mode, "VIP, Proxy", parse)
        }
        DataPath::Userspace => {
            let parse = |text: &str| match parse(text)? {
                IpMode::Proxy => Ok(IpMode::Proxy),
                IpMode::Vip => Err("kube-proxy would answer instead of the proxies in userspace"),
            };
            annotation_or_default(service, annotations::IP_MODE, &IpMode::Proxy, "Proxy", parse)
        }
    }
}

pub(super) fn priority_class(service: &Service, defaults: &ServiceDefaults) -> Result<String, SpecError> {
    annotation_or_default(
        service,
        annotations::PRIORITY_CLASS,
        &defaults.priority_class,
        "the name of a PriorityClass, for example system-node-critical",
        |text| if dns1123::is_subdomain(text) { Ok(text.to_owned()) } else { Err("not a valid name") },
    )
}

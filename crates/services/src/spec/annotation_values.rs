//! Reads the values of a Service's annotations, except the annotations for the data path. Pure.

use akrobateo_core::{DataPath, annotations};
use k8s_openapi::api::core::v1::{Service, Toleration};
use kube::ResourceExt;

use super::annotation::{annotation_or_default, invalid_annotation};
use super::client_address::ClientAddress;
use super::defaults::ServiceDefaults;
use super::error::SpecError;
use super::ip_mode::{IpMode, IpModeSetting};
use super::node_selector::{self, LabelRequirement};
use super::tolerations;
use super::workload_spec::{ProxyWorkload, WorkloadKind, WorkloadSpec};
use crate::address_type::AddressType;

/// The maximum number of replicas of a Deployment. Each replica needs its own node.
const MAX_REPLICAS: u16 = 1000;

/// Returns the requirements of the annotation and the requirements of the administrator. A node must match all these
/// requirements.
pub(super) fn read_node_selector(
    service: &Service,
    defaults: &ServiceDefaults,
) -> Result<Vec<LabelRequirement>, SpecError> {
    let requirements = annotation_or_default(
        service,
        annotations::NODE_SELECTOR,
        &Vec::new(),
        node_selector::ALLOWED_VALUES,
        node_selector::parse,
    )?;
    let additional_requirements =
        requirements.into_iter().filter(|requirement| !defaults.requirements.contains(requirement));
    Ok(defaults.requirements.iter().cloned().chain(additional_requirements).collect())
}

pub(super) fn read_tolerations(
    service: &Service,
    defaults: &ServiceDefaults,
) -> Result<Vec<Toleration>, SpecError> {
    let name = annotations::TOLERATIONS;
    let Some(text) = service.annotations().get(name) else { return Ok(defaults.tolerations.clone()) };
    let tolerations = tolerations::parse(text)
        .map_err(|error| invalid_annotation(name, text, &error.to_string(), tolerations::ALLOWED_VALUES))?;
    let bounds: Vec<_> = defaults.tolerations.iter().chain(&defaults.bounds.tolerations).cloned().collect();
    let Some(position) = tolerations::find_position_of_uncovered_toleration(&tolerations, &bounds) else {
        return Ok(tolerations);
    };
    let allowed_values = format!(
        "{}, by the operator's --tolerations and --allowed-tolerations; to use another toleration, ask the \
         administrator of the cluster",
        tolerations::describe(&bounds)
    );
    Err(invalid_annotation(name, text, &format!("toleration {position} is not allowed"), &allowed_values))
}

/// Returns the programs that forward the Service. The node agents cannot forward in userspace, so a Service with the
/// userspace data path needs proxies. The administrator can forbid proxies, because the operator needs additional
/// rights to run proxies.
pub(super) fn read_workload(
    service: &Service,
    defaults: &ServiceDefaults,
    data_path: DataPath,
) -> Result<WorkloadSpec, SpecError> {
    let (needs_proxies, allows_proxies) =
        (data_path == DataPath::Userspace, defaults.allows_dedicated_proxies);
    if needs_proxies && !allows_proxies {
        return Err(SpecError::UnsupportedSpec(no_proxies_message(
            "forwards in userspace",
            &format!("remove the annotations {} and {}", annotations::PROXY_PROTOCOL, annotations::DATA_PATH),
        )));
    }
    let parse_kind = |text: &str| match text {
        "Shared" if needs_proxies => Err("only the Service's own proxies can forward in userspace"),
        "DaemonSet" | "Deployment" if !allows_proxies => {
            Err("the operator runs with --dedicated=false, so a Service cannot have its own proxies")
        }
        "Shared" => Ok(WorkloadKind::Shared),
        "DaemonSet" => Ok(WorkloadKind::DaemonSet),
        "Deployment" => Ok(WorkloadKind::Deployment),
        _ => Err("unknown kind of workload"),
    };
    let parse_replicas = |text: &str| match text.parse() {
        Ok(replicas) if (1..=MAX_REPLICAS).contains(&replicas) => Ok(replicas),
        Ok(_) => Err("out of range"),
        Err(_) => Err("not a number of replicas"),
    };
    let default_kind = match defaults.workload {
        WorkloadKind::Shared if needs_proxies => WorkloadKind::DaemonSet,
        kind => kind,
    };
    let kind = annotation_or_default(
        service,
        annotations::WORKLOAD,
        &default_kind,
        match (needs_proxies, allows_proxies) {
            (true, _) => "DaemonSet, Deployment",
            (false, true) => "Shared, DaemonSet, Deployment",
            (false, false) => "Shared",
        },
        parse_kind,
    )?;
    let replicas = annotation_or_default(
        service,
        annotations::REPLICAS,
        &defaults.replicas,
        &format!("a number from 1 to {MAX_REPLICAS}"),
        parse_replicas,
    )?;
    match kind {
        WorkloadKind::Shared => Ok(WorkloadSpec::Shared),
        // This kind is the operator's default. An annotation with this kind was rejected above.
        WorkloadKind::DaemonSet | WorkloadKind::Deployment if !allows_proxies => {
            Err(SpecError::UnsupportedSpec(no_proxies_message(
                &format!(
                    "has no annotation {}, and the operator's --workload selects proxies",
                    annotations::WORKLOAD
                ),
                "set the annotation to Shared, or set --workload=Shared for all Services",
            )))
        }
        WorkloadKind::DaemonSet => Ok(WorkloadSpec::Dedicated(ProxyWorkload::DaemonSet)),
        WorkloadKind::Deployment => Ok(WorkloadSpec::Dedicated(ProxyWorkload::Deployment { replicas })),
    }
}

/// Returns the message for a Service that needs its own proxies, which the administrator forbids.
fn no_proxies_message(cause: &str, solution: &str) -> String {
    format!(
        "the Service {cause}, so it needs proxies of its own, but the operator's --dedicated=false forbids them; {solution}, or ask \
         the administrator of the cluster to allow proxies"
    )
}

pub(super) fn read_client_address(
    service: &Service,
    defaults: &ServiceDefaults,
) -> Result<ClientAddress, SpecError> {
    annotation_or_default(
        service,
        annotations::CLIENT_ADDRESS,
        &defaults.client_address,
        "keep, masquerade",
        ClientAddress::parse,
    )
}

pub(super) fn read_address_types(
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

/// Returns the ipMode. If the proxies forward in userspace, the ipMode is Proxy, because with VIP kube-proxy would
/// forward instead of the proxies. If the node agents forward, `auto` also selects Proxy, because with VIP kube-proxy
/// may forward instead of the agents, and only the agents keep the client's address.
pub(super) fn read_ip_mode(
    service: &Service,
    defaults: &ServiceDefaults,
    workload: WorkloadSpec,
    data_path: DataPath,
) -> Result<IpMode, SpecError> {
    let vip_error = match (data_path, &defaults.vip_danger) {
        (DataPath::Userspace, _) => {
            Some("kube-proxy would forward instead of the proxies in userspace".to_owned())
        }
        (DataPath::Kernel, Some(danger)) => {
            Some(format!("with VIP, nodes could lose the connection to each other, because {danger}"))
        }
        (DataPath::Kernel, None) => None,
    };
    let allowed_values = if vip_error.is_some() { "Proxy" } else { "VIP, Proxy" };
    let default = match data_path {
        DataPath::Kernel if workload == WorkloadSpec::Shared && defaults.ip_mode == IpModeSetting::Auto => {
            IpMode::Proxy
        }
        DataPath::Kernel => defaults.default_ip_mode(),
        DataPath::Userspace => IpMode::Proxy,
    };
    annotation_or_default(service, annotations::IP_MODE, &default, allowed_values, |text| {
        match (IpMode::parse(text), vip_error) {
            (None, _) => Err("unknown ipMode".to_owned()),
            (Some(IpMode::Vip), Some(error)) => Err(error),
            (Some(ip_mode), _) => Ok(ip_mode),
        }
    })
}

pub(super) fn read_priority_class(
    service: &Service,
    defaults: &ServiceDefaults,
) -> Result<String, SpecError> {
    let default = &defaults.priority_class;
    let allowed_classes = std::iter::once(default).chain(&defaults.bounds.priority_classes);
    let allowed_classes: Vec<_> =
        allowed_classes.filter(|name| !name.is_empty()).map(String::as_str).collect();
    let allowed_list = match allowed_classes[..] {
        [] => "none".to_owned(),
        _ => allowed_classes.join(", "),
    };
    let allowed_values = format!(
        "{allowed_list}, by the operator's --priority-class and --allowed-priority-classes; to use another PriorityClass, ask \
         the administrator of the cluster"
    );
    annotation_or_default(service, annotations::PRIORITY_CLASS, default, &allowed_values, |text| {
        if allowed_classes.contains(&text) {
            Ok(text.to_owned())
        } else {
            Err("not an allowed PriorityClass")
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{defaults, service};
    use crate::spec::WorkloadSpec;

    fn workload_without_dedicated(
        annotation: Option<(&str, &str)>,
        default: WorkloadKind,
        data_path: DataPath,
    ) -> Result<WorkloadSpec, String> {
        let service = service("web").tcp(80);
        let service = match annotation {
            Some((name, value)) => service.annotation(name, value),
            None => service,
        };
        let defaults = ServiceDefaults { allows_dedicated_proxies: false, workload: default, ..defaults() };
        read_workload(&service.build(), &defaults, data_path).map_err(|error| error.to_string())
    }

    #[test]
    fn service_that_needs_proxies_is_rejected_without_dedicated_mode() {
        let shared_annotation = Some((annotations::WORKLOAD, "Shared"));
        let kernel = DataPath::Kernel;
        for default in [WorkloadKind::Shared, WorkloadKind::DaemonSet] {
            assert_eq!(
                workload_without_dedicated(shared_annotation, default, kernel),
                Ok(WorkloadSpec::Shared)
            );
        }
        assert_eq!(workload_without_dedicated(None, WorkloadKind::Shared, kernel), Ok(WorkloadSpec::Shared));
        let daemonset = Some((annotations::WORKLOAD, "DaemonSet"));
        let error = workload_without_dedicated(daemonset, WorkloadKind::Shared, kernel).unwrap_err();
        assert!(error.contains("--dedicated=false") && error.ends_with("allowed: Shared"), "{error}");
        for (default, data_path) in [
            (WorkloadKind::DaemonSet, kernel),
            (WorkloadKind::Deployment, kernel),
            (WorkloadKind::Shared, DataPath::Userspace),
        ] {
            let error = workload_without_dedicated(None, default, data_path).unwrap_err();
            assert!(error.contains("--dedicated=false forbids them"), "{error}");
            assert_eq!(error.contains("forwards in userspace"), data_path == DataPath::Userspace, "{error}");
        }
    }
}

//! The choices that a Service makes by annotation, and an administrator by flag for all others. Pure.

use std::fmt;
use std::str::FromStr;

use akrobateo_core::{DataPath, Protocol, annotations};
use k8s_openapi::api::core::v1::{Service, Toleration};
use kube::ResourceExt;

use super::node_selector::{self, Requirement};
use super::{HostPort, SpecError, tolerations};
use crate::address_type::AddressType;

/// Most proxies that a Deployment may be given: each needs a node of its own.
const MAX_REPLICAS: u16 = 1000;

/// What holds for Services that do not choose.
#[derive(Clone, Debug)]
pub(crate) struct ServiceDefaults {
    /// Whether Services without a loadBalancerClass are ours.
    pub(crate) default_class: bool,
    pub(crate) requirements: Vec<Requirement>,
    pub(crate) tolerations: Vec<Toleration>,
    pub(crate) workload: WorkloadKind,
    pub(crate) replicas: u16,
    pub(crate) address_types: Vec<AddressType>,
    /// What `auto` comes to on this cluster is decided before.
    pub(crate) ip_mode: IpMode,
    pub(crate) priority_class: String,
    pub(crate) reserved_ports: PortSet,
}

/// What runs proxies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Workload {
    /// One on each chosen node.
    DaemonSet,
    /// So many, each on a node of its own.
    Deployment { replicas: u16 },
}

/// A [`Workload`] without its size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "PascalCase")]
pub(crate) enum WorkloadKind {
    /// One proxy on each chosen node.
    DaemonSet,
    /// As many proxies as replicas, each on a node of its own.
    Deployment,
}

/// Whether kube-proxy may answer in the proxies' stead (`VIP`), or must let them (`Proxy`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IpMode {
    Vip,
    Proxy,
}

impl IpMode {
    /// As in a Service's status.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Vip => "VIP",
            Self::Proxy => "Proxy",
        }
    }

    /// Reads what [`Self::as_str`] gives.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        [Self::Vip, Self::Proxy].into_iter().find(|mode| mode.as_str() == text)
    }
}

pub(super) fn node_selector(
    service: &Service,
    defaults: &ServiceDefaults,
) -> Result<Vec<Requirement>, SpecError> {
    choice(
        service,
        annotations::NODE_SELECTOR,
        &defaults.requirements,
        node_selector::ALLOWED,
        node_selector::parse,
    )
}

pub(super) fn tolerations(
    service: &Service,
    defaults: &ServiceDefaults,
) -> Result<Vec<Toleration>, SpecError> {
    choice(service, annotations::TOLERATIONS, &defaults.tolerations, tolerations::ALLOWED, tolerations::parse)
}

pub(super) fn workload(service: &Service, defaults: &ServiceDefaults) -> Result<Workload, SpecError> {
    let kind = |text: &str| match text {
        "DaemonSet" => Some(WorkloadKind::DaemonSet),
        "Deployment" => Some(WorkloadKind::Deployment),
        _ => None,
    };
    let replicas = |text: &str| text.parse().ok().filter(|replicas| (1..=MAX_REPLICAS).contains(replicas));
    let kind = choice(service, annotations::WORKLOAD, &defaults.workload, "DaemonSet, Deployment", kind)?;
    let allowed = format!("a number from 1 to {MAX_REPLICAS}");
    let replicas = choice(service, annotations::REPLICAS, &defaults.replicas, &allowed, replicas)?;
    Ok(match kind {
        WorkloadKind::DaemonSet => Workload::DaemonSet,
        WorkloadKind::Deployment => Workload::Deployment { replicas },
    })
}

pub(super) fn address_types(
    service: &Service,
    defaults: &ServiceDefaults,
) -> Result<Vec<AddressType>, SpecError> {
    let parse = |text: &str| {
        let kind = |part: &str| AddressType::ALL.into_iter().find(|kind| kind.as_str() == part.trim());
        text.split(',').map(kind).collect()
    };
    let allowed = "ExternalIP, InternalIP, or both by preference, for example InternalIP,ExternalIP";
    choice(service, annotations::ADDRESS_TYPES, &defaults.address_types, allowed, parse)
}

/// In userspace it is Proxy, so that kube-proxy leaves clients to the proxies.
pub(super) fn ip_mode(
    service: &Service,
    defaults: &ServiceDefaults,
    path: DataPath,
) -> Result<IpMode, SpecError> {
    match path {
        DataPath::Kernel => {
            choice(service, annotations::IP_MODE, &defaults.ip_mode, "VIP, Proxy", IpMode::parse)
        }
        DataPath::Userspace => {
            let allowed = "Proxy, for with VIP kube-proxy would answer in the place of proxies in userspace";
            let proxy = |text: &str| IpMode::parse(text).filter(|mode| *mode == IpMode::Proxy);
            choice(service, annotations::IP_MODE, &IpMode::Proxy, allowed, proxy)
        }
    }
}

pub(super) fn priority_class(service: &Service, defaults: &ServiceDefaults) -> Result<String, SpecError> {
    let is_part = |part: &str| {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        !part.is_empty() && !part.starts_with('-') && !part.ends_with('-') && part.bytes().all(plain)
    };
    let parse = |text: &str| (text.len() <= 253 && text.split('.').all(is_part)).then(|| text.to_owned());
    let allowed = "the name of a PriorityClass, for example system-node-critical";
    choice(service, annotations::PRIORITY_CLASS, &defaults.priority_class, allowed, parse)
}

/// The annotation's value, or the default where there is no annotation.
pub(super) fn choice<T: Clone>(
    service: &Service,
    name: &'static str,
    default: &T,
    allowed: &str,
    parse: impl FnOnce(&str) -> Option<T>,
) -> Result<T, SpecError> {
    let Some(value) = service.annotations().get(name) else { return Ok(default.clone()) };
    let invalid =
        || SpecError::InvalidAnnotation { name, value: excerpt(value), allowed: allowed.to_owned() };
    parse(value).ok_or_else(invalid)
}

/// As much of a value as a message has room for.
fn excerpt(value: &str) -> String {
    const ROOM: usize = 200;
    let mut short: String = value.chars().take(ROOM).collect();
    if short.len() < value.len() {
        short.push('…');
    }
    short
}

/// TCP ports: numbers and ranges, comma-separated, as in `22,2379-2380`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PortSet(Vec<(u16, u16)>);

impl PortSet {
    /// Whether the port is in the set; only TCP ports are.
    pub(crate) fn contains(&self, (protocol, port): HostPort) -> bool {
        protocol == Protocol::Tcp && self.0.iter().any(|&(first, last)| (first..=last).contains(&port))
    }
}

impl FromStr for PortSet {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let range = |part: &str| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
            (1..=last).contains(&first).then_some((first, last))
        };
        let parts = text.split(',').filter(|_| !text.trim().is_empty());
        parts
            .map(|part| range(part).ok_or_else(|| part.to_owned()))
            .collect::<Result<_, _>>()
            .map(Self)
            .map_err(|part| {
                format!("{part:?} is neither a port from 1 to 65535 nor a range of ports such as 2379-2380")
            })
    }
}

impl fmt::Display for PortSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (first, last)) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            let range = if first == last { first.to_string() } else { format!("{first}-{last}") };
            write!(f, "{comma}{range}")?;
        }
        Ok(())
    }
}

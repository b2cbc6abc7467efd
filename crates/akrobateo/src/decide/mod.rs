//! What should be, from what is. Pure: no I/O, no clock.

mod actions;
mod addresses;
mod blocker;
mod condition;
mod foreign_fields;
mod matching;
mod missing_pods;
mod pod;
mod service_state;
mod traffic_policy;
mod workload;

#[cfg(test)]
pub(crate) mod fixtures;
#[cfg(test)]
mod tests;

use k8s_openapi::api::core::v1::{LoadBalancerIngress, Service};
use k8s_openapi::jiff::Timestamp;

use crate::allocation::{Admission, Allocation};
use crate::node_info::NodeInfo;
use crate::spec::{IpMode, LoadBalancerSpec, ServiceDefaults, SpecError};
pub(crate) use actions::{Action, difference};
use addresses::AddressInputs;
pub(crate) use addresses::{is_published, is_ready, published, runs_on};
use blocker::Blocker;
use condition::Exposure;
pub(crate) use foreign_fields::foreign_fields;
pub(crate) use missing_pods::MissingPods;
pub(crate) use service_state::ServiceState;
pub(crate) use workload::{Placement, ProxyConfig, Workload};

/// What should be for one Service.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Decision {
    pub(crate) proxy: Proxy,
    /// `None` leaves the status to whoever it belongs to.
    pub(crate) status: Option<Status>,
    /// When to decide again although nothing has happened.
    pub(crate) again: Option<Timestamp>,
}

/// What should be of a Service's proxies.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Proxy {
    /// Nothing may run for this Service.
    Absent,
    /// This, exactly.
    Present(Workload),
    /// Whatever there is: what is asked for now cannot be had.
    Unchanged,
}

/// What a Service's status should say.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Status {
    pub(crate) addresses: Vec<LoadBalancerIngress>,
    /// `None` if it is not for us to say anything.
    pub(crate) exposure: Option<Exposure>,
}

/// Decides for one Service.
pub(crate) fn decide(
    settings: &ProxyConfig,
    defaults: &ServiceDefaults,
    observed: &ServiceState,
    now: Timestamp,
) -> Decision {
    let Some(service) = observed.service.as_deref() else {
        return Decision { proxy: Proxy::Absent, status: None, again: None };
    };
    match &observed.case {
        None => {
            let given_up = Status { addresses: Vec::new(), exposure: None };
            Decision {
                proxy: Proxy::Absent,
                status: crate::spec::is_status_ours(service).then_some(given_up),
                again: None,
            }
        }
        Some(Admission::Rejected(refusal)) => refuse(defaults, observed, service, refusal, now),
        Some(Admission::Accepted(_, verdict)) if verdict.no_node_left => {
            let exposure = Some(Exposure::conflicting(verdict));
            Decision {
                proxy: Proxy::Absent,
                status: Some(Status { addresses: Vec::new(), exposure }),
                again: None,
            }
        }
        Some(Admission::Accepted(wish, verdict)) => serve(settings, observed, service, wish, verdict, now),
    }
}

/// The last good proxies keep running, so their nodes' comings and goings still matter.
fn refuse(
    defaults: &ServiceDefaults,
    observed: &ServiceState,
    service: &Service,
    refusal: &SpecError,
    now: Timestamp,
) -> Decision {
    let ServiceState { pods, nodes, missing, .. } = observed;
    let all = |_: &NodeInfo| true;
    let evidence =
        AddressInputs { pods, nodes, missing, may_answer: &all, will_return: &all, may_move: false, now };
    let backed = addresses::backed(service, &evidence);
    let mode = published_mode(service).unwrap_or(defaults.ip_mode);
    let addresses = addresses::ingress(service, &backed.nodes, &defaults.address_types, mode);
    let exposure = Exposure::refused(refusal, !addresses.is_empty());
    let status = Some(Status { addresses, exposure: Some(exposure) });
    Decision { proxy: Proxy::Unchanged, status, again: backed.until }
}

fn serve(
    settings: &ProxyConfig,
    observed: &ServiceState,
    service: &Service,
    wish: &LoadBalancerSpec,
    verdict: &Allocation,
    now: Timestamp,
) -> Decision {
    let ServiceState { pods, nodes, missing, endpoint_nodes, .. } = observed;
    let (path, caveat) = traffic_policy::path(wish, nodes);
    let may_answer = |node: &NodeInfo| !wish.local || endpoint_nodes.contains(&node.name);
    let will_return =
        |node: &NodeInfo| wish.nodes.includes(node) && !verdict.excluded_nodes.contains(&node.name);
    let may_move = wish.workload != crate::spec::Workload::DaemonSet;
    let evidence = AddressInputs {
        pods,
        nodes,
        missing,
        may_answer: &may_answer,
        will_return: &will_return,
        may_move,
        now,
    };
    let backed = addresses::backed(service, &evidence);
    let addresses = addresses::ingress(service, &backed.nodes, &wish.address_types, wish.ip_mode);
    let (obstacle, due) = Blocker::find(observed, wish, &backed, now);
    let exposure = Exposure::served(addresses.len(), verdict, caveat, pods, obstacle.as_ref());
    Decision {
        proxy: Proxy::Present(Workload::of(settings, service, wish, &verdict.excluded_nodes, path)),
        status: Some(Status { addresses, exposure: Some(exposure) }),
        again: backed.until.into_iter().chain(due).min(),
    }
}

fn published_mode(service: &Service) -> Option<IpMode> {
    addresses::published(service).first().and_then(|ingress| IpMode::parse(ingress.ip_mode.as_deref()?))
}

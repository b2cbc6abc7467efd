//! What should be, from what is. Pure: no I/O, no clock.

mod addresses;
mod condition;
mod covers;
mod difference;
mod foreign;
mod landscape;
mod local;
mod node_facts;
mod obstacle;
mod ownership;
mod pod;
mod wish;
mod workload;

#[cfg(test)]
pub(crate) mod fixtures;
#[cfg(test)]
mod tests;

use k8s_openapi::api::core::v1::{LoadBalancerIngress, Service};
use k8s_openapi::jiff::Timestamp;

use crate::observe::Observed;
use addresses::Evidence;
pub(crate) use addresses::{is_published, is_ready, published, runs_on};
use condition::Exposure;
pub(crate) use difference::{Change, difference};
pub(crate) use foreign::additions;
pub(crate) use landscape::{Case, Holding, Landscape};
pub(crate) use node_facts::NodeFacts;
use obstacle::Obstacle;
use ownership::Verdict;
pub(crate) use wish::{AddressType, HostPort, WorkloadKind, not_ours};
pub(crate) use wish::{Defaults, IpMode, PortSet, Requirement, parse_node_selector, parse_tolerations};
use wish::{Refusal, Wish};
pub(crate) use workload::{Placement, ProxySettings, Workload};

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
    settings: &ProxySettings,
    defaults: &Defaults,
    observed: &Observed,
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
                status: wish::is_status_ours(service).then_some(given_up),
                again: None,
            }
        }
        Some(Case::Refused(refusal)) => refuse(defaults, observed, service, refusal, now),
        Some(Case::Granted(_, verdict)) if verdict.nowhere => {
            let exposure = Some(Exposure::crowded_out(verdict));
            Decision {
                proxy: Proxy::Absent,
                status: Some(Status { addresses: Vec::new(), exposure }),
                again: None,
            }
        }
        Some(Case::Granted(wish, verdict)) => serve(settings, observed, service, wish, verdict, now),
    }
}

/// The last good proxies keep running, so their nodes' comings and goings still matter.
fn refuse(
    defaults: &Defaults,
    observed: &Observed,
    service: &Service,
    refusal: &Refusal,
    now: Timestamp,
) -> Decision {
    let Observed { pods, nodes, missing, .. } = observed;
    let all = |_: &NodeFacts| true;
    let evidence =
        Evidence { pods, nodes, missing, may_answer: &all, will_return: &all, may_move: false, now };
    let backed = addresses::backed(service, &evidence);
    let mode = published_mode(service).unwrap_or(defaults.ip_mode);
    let addresses = addresses::ingress(service, &backed.nodes, &defaults.address_types, mode);
    let exposure = Exposure::refused(refusal, !addresses.is_empty());
    let status = Some(Status { addresses, exposure: Some(exposure) });
    Decision { proxy: Proxy::Unchanged, status, again: backed.until }
}

fn serve(
    settings: &ProxySettings,
    observed: &Observed,
    service: &Service,
    wish: &Wish,
    verdict: &Verdict,
    now: Timestamp,
) -> Decision {
    let Observed { pods, nodes, missing, endpoint_nodes, .. } = observed;
    let (path, caveat) = local::path(wish, nodes);
    let may_answer = |node: &NodeFacts| !wish.local || endpoint_nodes.contains(&node.name);
    let will_return = |node: &NodeFacts| wish.nodes.includes(node) && !verdict.keep_off.contains(&node.name);
    let may_move = wish.workload != wish::Workload::DaemonSet;
    let evidence =
        Evidence { pods, nodes, missing, may_answer: &may_answer, will_return: &will_return, may_move, now };
    let backed = addresses::backed(service, &evidence);
    let addresses = addresses::ingress(service, &backed.nodes, &wish.address_types, wish.ip_mode);
    let (obstacle, due) = Obstacle::find(observed, wish, &backed, now);
    let exposure = Exposure::served(addresses.len(), verdict, caveat, pods, obstacle.as_ref());
    Decision {
        proxy: Proxy::Present(Workload::of(settings, service, wish, &verdict.keep_off, path)),
        status: Some(Status { addresses, exposure: Some(exposure) }),
        again: backed.until.into_iter().chain(due).min(),
    }
}

fn published_mode(service: &Service) -> Option<IpMode> {
    addresses::published(service).first().and_then(|ingress| IpMode::parse(ingress.ip_mode.as_deref()?))
}

//! Finds the ports of the node that a pod (with a hostPort) or a process uses. Pure.

use std::collections::BTreeSet;
use std::sync::Arc;

use akrobateo_core::{Family, Frontend};
use akrobateo_services::agent_report::{PortOwner, PortProblem};
use akrobateo_services::key::ServiceKey;
use akrobateo_services::node_info::NodeInfo;
use akrobateo_services::parsed_services::ParsedService;
use akrobateo_services::spec::{LoadBalancerSpec, WorkloadSpec};

use super::observation::{HostPortPod, Observation};
use super::template::ServiceTemplate;

/// The result of [`check_ports`].
pub(super) enum PortCheck {
    /// The node must refuse the Service, because a pod or a process uses one of its new ports.
    Refused(PortProblem),
    /// The node may serve the Service. The problem is about a port on which the node already serves the Service, and
    /// which a pod or a process also uses.
    Accepted(Option<PortProblem>),
}

/// Checks if a pod or a process uses one of the Service's ports. `current_template` contains the settings with which the
/// node serves the Service now. The Service keeps each of these ports.
pub(super) fn check_ports(
    observation: &Observation,
    parsed: &ParsedService,
    node: &NodeInfo,
    current_template: Option<&Arc<ServiceTemplate>>,
) -> PortCheck {
    let (key, Some(Ok(spec))) = (&parsed.key, &parsed.spec) else { return PortCheck::Accepted(None) };
    if spec.workload != WorkloadSpec::Shared || !spec.nodes.matches(node) {
        return PortCheck::Accepted(None);
    }
    let frontends = frontends_on_node(observation, spec);
    let current_frontends = current_template.map(|template| template.frontends()).unwrap_or_default();
    let new_frontends = frontends.difference(&current_frontends).copied().collect();
    if let Some(problem) = find_occupied_port(observation, key, &new_frontends) {
        return PortCheck::Refused(problem);
    }
    let kept_frontends = frontends.intersection(&current_frontends).copied().collect();
    PortCheck::Accepted(find_occupied_port(observation, key, &kept_frontends))
}

/// Returns the frontends of a Service in the families of the node.
fn frontends_on_node(observation: &Observation, spec: &LoadBalancerSpec) -> BTreeSet<Frontend> {
    let mut frontends = spec.frontends();
    let addresses = observation.network.local_addresses.iter();
    let families: BTreeSet<_> = addresses.map(|address| Family::from_ip(*address)).collect();
    frontends.retain(|frontend| families.contains(&frontend.family));
    frontends
}

/// Returns the first of the Service's frontends that a pod or a process uses, together with this owner. Ignores the
/// proxies of the Service itself.
fn find_occupied_port(
    observation: &Observation,
    key: &ServiceKey,
    frontends: &BTreeSet<Frontend>,
) -> Option<PortProblem> {
    frontends.iter().find_map(|frontend| {
        let pod = observation
            .pods
            .iter()
            .find(|pod| pod.frontends.contains(frontend) && pod.proxied_service.as_ref() != Some(key));
        let owner = match pod {
            Some(pod) => PortOwner::Pod(pod.name.clone()),
            None if (observation.has_listener)(*frontend)
                && !is_used_by_proxy(observation, key, *frontend) =>
            {
                PortOwner::Process
            }
            None => return None,
        };
        Some(PortProblem { service: key.to_string(), port: frontend.host_port().to_string(), owner })
    })
}

/// Returns true if a proxy of the Service uses the port. The listening process may then be the proxy itself, because a
/// proxy can run in the node's network namespace.
fn is_used_by_proxy(observation: &Observation, key: &ServiceKey, frontend: Frontend) -> bool {
    let is_proxy = |pod: &&HostPortPod| pod.proxied_service.as_ref() == Some(key);
    observation.pods.iter().filter(is_proxy).any(|pod| pod.frontends.contains(&frontend))
}

//! Finds the ports of the node that a pod (with a hostPort) or a process uses. Pure.

use std::collections::BTreeSet;

use akrobateo_core::Frontend;
use akrobateo_services::agent_report::{PortOwner, PortProblem};
use akrobateo_services::key::ServiceKey;

use super::observation::{HostPortPod, Observation};

/// Returns the first of the Service's frontends that a pod or a process uses, together with this owner. Ignores the
/// proxies of the Service itself.
pub(super) fn find_occupied_port(
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

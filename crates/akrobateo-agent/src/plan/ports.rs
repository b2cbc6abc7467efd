//! The ports of the node that another owner than a Service has: the hostPorts of pods, and the ports of processes. Pure.

use std::collections::BTreeSet;

use akrobateo_core::Frontend;
use akrobateo_services::agent_report::{PortOwner, PortProblem};
use akrobateo_services::key::ServiceKey;

use super::observation::Observation;

/// Returns the first frontend, in their order, that has another owner than a Service. The proxies of a Service are no
/// other owner for this Service.
pub(super) fn find_foreign_owner(
    observation: &Observation,
    key: &ServiceKey,
    frontends: &BTreeSet<Frontend>,
) -> Option<PortProblem> {
    frontends.iter().find_map(|frontend| {
        let pod = observation
            .pods
            .iter()
            .find(|pod| pod.frontends.contains(frontend) && pod.proxy_of.as_ref() != Some(key));
        let owner = match pod {
            Some(pod) => PortOwner::Pod(pod.name.clone()),
            None if (observation.is_listening)(*frontend) && !has_own_proxy(observation, key, *frontend) => {
                PortOwner::Process
            }
            None => return None,
        };
        Some(PortProblem { service: key.to_string(), port: frontend.host_port().to_string(), owner })
    })
}

/// Returns true if a proxy of the Service has the port. In the host's network, the proxy itself may listen.
fn has_own_proxy(observation: &Observation, key: &ServiceKey, frontend: Frontend) -> bool {
    observation.pods.iter().any(|pod| pod.frontends.contains(&frontend) && pod.proxy_of.as_ref() == Some(key))
}

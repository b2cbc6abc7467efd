//! All Services at once: what each asks for, and what it gets of the ports that several want. Pure.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;

mod claims;

use crate::key::ServiceKey;
use crate::node_info::NodeInfo;
use crate::spec::{HostPort, LoadBalancerSpec, ServiceDefaults, SpecError, is_eligible};
pub(crate) use claims::{Allocation, Conflict};
use claims::{NodePorts, NodeSet, PortClaim, Precedence, ownership};

/// A wanted Service's case.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Admission {
    /// It asks for what cannot be had.
    Rejected(SpecError),
    /// It is to be served, where others leave room.
    Accepted(Arc<LoadBalancerSpec>, Allocation),
}

/// The ports and nodes that a Service's proxies hold now.
#[derive(Clone, Debug, Default)]
pub(crate) struct HeldPorts {
    pub(crate) ports: BTreeSet<HostPort>,
    pub(crate) nodes: BTreeSet<String>,
}

/// The case of every wanted Service.
#[derive(Clone, Debug, Default)]
pub(crate) struct PortAllocations {
    cases: HashMap<ServiceKey, Admission>,
}

impl PortAllocations {
    /// Looks at everything. `holding` tells what a refused Service's last good proxies hold.
    pub(crate) fn allocate(
        services: &[Arc<Service>],
        nodes: &[NodeInfo],
        defaults: &ServiceDefaults,
        holding: impl Fn(&ServiceKey) -> HeldPorts,
    ) -> Self {
        let wanted = services.iter().filter(|service| is_eligible(service, defaults.default_class));
        let wishes: Vec<_> = wanted
            .map(|service| {
                (
                    ServiceKey::of(service),
                    Precedence::of(service),
                    LoadBalancerSpec::of(service, defaults).map(Arc::new),
                )
            })
            .collect();
        let claims: Vec<_> = wishes
            .iter()
            .map(|(key, age, wish)| {
                let (ports, nodes) = if let Ok(wish) = wish {
                    (wish.host_ports(), NodeSet::Selected(wish.nodes.clone()))
                } else {
                    let HeldPorts { ports, nodes } = holding(key);
                    (ports, NodeSet::Running(nodes))
                };
                PortClaim { key: key.clone(), age: age.clone(), ports, nodes }
            })
            .collect();
        let mut verdicts = ownership(&claims, nodes, &node_ports(services));
        let case = |(key, _, wish): (ServiceKey, Precedence, Result<Arc<LoadBalancerSpec>, SpecError>)| {
            let verdict = verdicts.remove(&key).unwrap_or_default();
            let case = wish.map_or_else(Admission::Rejected, |wish| Admission::Accepted(wish, verdict));
            (key, case)
        };
        Self { cases: wishes.into_iter().map(case).collect() }
    }

    /// The case of one Service; `None` if it is gone or not ours.
    pub(crate) fn case(&self, key: &ServiceKey) -> Option<&Admission> {
        self.cases.get(key)
    }

    /// The Services whose case is not what it was in `before`.
    pub(crate) fn changed_since(&self, before: &Self) -> Vec<ServiceKey> {
        let changed = self.cases.iter().filter(|(key, case)| before.cases.get(key) != Some(case));
        let gone = before.cases.keys().filter(|key| !self.cases.contains_key(key));
        changed.map(|(key, _)| key).chain(gone).cloned().collect()
    }
}

fn node_ports(services: &[Arc<Service>]) -> NodePorts {
    let mut held = NodePorts::new();
    for service in services {
        let ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
        for port in ports {
            let protocol = port.protocol.as_deref().unwrap_or("TCP").parse();
            let number =
                port.node_port.and_then(|number| u16::try_from(number).ok()).filter(|number| *number > 0);
            if let (Ok(protocol), Some(number)) = (protocol, number) {
                held.insert((protocol, number), ServiceKey::of(service));
            }
        }
    }
    held
}

//! A kernel that records the changes of its data path. Does no I/O itself.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use akrobateo_agent::agent::{Modes, Observer};
use akrobateo_agent::config::{NodeConfig, Peer, Service};
use akrobateo_agent::data_path::DataPathError;
use akrobateo_agent::host::{ConntrackUse, HostError, HostNetwork, HostWatch};
use akrobateo_agent::listeners::{Listeners, ListenersError};
use akrobateo_agent::probe::{ForwardingMode, PeerPath, TargetId};
use akrobateo_agent::run::{KernelReader, NodeKernel, RunningDataPath};
use akrobateo_core::Family;
use links::MacAddress;
use netfilter::nft::InstalledTable;

use super::recorder::Recorder;
use crate::objects::change_number;

/// The kernel of one node.
pub(super) struct RecordingKernel {
    mac: MacAddress,
    recorder: Arc<Recorder>,
}

/// The data path of one node.
struct RecordingDataPath {
    state: Mutex<State>,
    recorder: Arc<Recorder>,
}

struct State {
    config: NodeConfig,
    observer: Box<dyn Observer>,
}

impl RecordingKernel {
    pub(super) fn new(node: usize, recorder: Arc<Recorder>) -> Self {
        let [.., high, low] = node.to_be_bytes();
        Self { mac: MacAddress([2, 0, 0, 0, high, low]), recorder }
    }
}

impl NodeKernel for RecordingKernel {
    fn open_counters(&self) -> Result<Option<KernelReader>, DataPathError> {
        Ok(None)
    }

    fn watch_network(&self) -> Result<Option<HostWatch>, HostError> {
        Ok(None)
    }

    fn read_network(&self, node_addresses: &[IpAddr]) -> Result<HostNetwork, HostError> {
        Ok(HostNetwork {
            uplink: "eth0".to_owned(),
            mac: Some(self.mac),
            mtu: 1500,
            local_addresses: node_addresses.to_vec(),
        })
    }

    fn read_listeners(&self) -> Result<Listeners, ListenersError> {
        Ok(Listeners::default())
    }

    fn read_conntrack_use(&self) -> Result<ConntrackUse, HostError> {
        Ok(ConntrackUse { count: 0, max: 262_144 })
    }

    fn read_table(&self) -> Result<Option<InstalledTable>, DataPathError> {
        Ok(None)
    }

    fn start_data_path(
        &self,
        id: u64,
        config: NodeConfig,
        mut observer: Box<dyn Observer>,
    ) -> Result<Box<dyn RunningDataPath>, DataPathError> {
        observer.on_modes(&direct_modes(&config.peers));
        observer.on_applied(id, Ok(()), Duration::ZERO);
        let state = Mutex::new(State { config, observer });
        Ok(Box::new(RecordingDataPath { state, recorder: Arc::clone(&self.recorder) }))
    }

    fn remove_data_path(&self) -> Result<(), DataPathError> {
        Ok(())
    }
}

impl RunningDataPath for RecordingDataPath {
    fn set_config(&self, id: u64, config: NodeConfig) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        for number in new_changes(&state.config.services, &config.services) {
            self.recorder.record(number);
        }
        if config.peers != state.config.peers {
            state.observer.on_modes(&direct_modes(&config.peers));
        }
        state.config = config;
        state.observer.on_applied(id, Ok(()), Duration::ZERO);
    }
}

/// Returns the modes in a network where the direct path to each peer works.
fn direct_modes(peers: &[Peer]) -> Modes {
    let mode = |peer: &Peer| {
        (TargetId { peer: peer.number, family: Family::V4 }, ForwardingMode::Keep(PeerPath::Direct))
    };
    peers.iter().map(mode).collect()
}

/// Returns the numbers of the changed endpoints that only the new Services contain.
fn new_changes(old: &[Service], new: &[Service]) -> Vec<u32> {
    let old_services: HashMap<_, _> = old.iter().map(|service| (&service.name, service)).collect();
    let mut changes = Vec::new();
    for service in new {
        let old_service = old_services.get(&service.name);
        if old_service == Some(&service) {
            continue;
        }
        let old_numbers: BTreeSet<_> = old_service.map(|it| numbers(it).collect()).unwrap_or_default();
        changes.extend(numbers(service).filter(|number| !old_numbers.contains(number)));
    }
    changes
}

fn numbers(service: &Service) -> impl Iterator<Item = u32> {
    let endpoints = service.ports.iter().flat_map(|port| &port.endpoints);
    endpoints.filter_map(|endpoint| match endpoint.address.ip() {
        IpAddr::V4(address) => change_number(address),
        IpAddr::V6(_) => None,
    })
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU16;

    use akrobateo_agent::config::{Endpoint, ServicePort};
    use akrobateo_core::Protocol;

    use super::*;

    fn service(name: &str, addresses: &[&str]) -> Service {
        let endpoint = |address: &&str| Endpoint {
            address: format!("{address}:80").parse().unwrap(),
            node: None,
            has_node_conflict: false,
            is_ready: true,
            is_serving_while_terminating: false,
            hinted_zones: Vec::new(),
            hinted_nodes: Vec::new(),
        };
        let port = ServicePort {
            protocol: Protocol::Tcp,
            port: NonZeroU16::MIN,
            endpoints: addresses.iter().map(endpoint).collect(),
        };
        Service {
            name: name.to_owned(),
            uid: None,
            families: vec![Family::V4],
            is_traffic_policy_local: false,
            keeps_client_address: true,
            affinity_seconds: None,
            source_ranges: None,
            ports: vec![port],
        }
    }

    #[test]
    fn changed_endpoints_are_found_once() {
        let old = [service("a", &["10.128.0.1", "10.192.0.1"]), service("b", &["10.128.0.2"])];
        let new = [service("a", &["10.192.0.1", "10.192.0.2"]), service("b", &["10.128.0.2"])];
        assert_eq!(new_changes(&old, &new), [2]);
        assert_eq!(new_changes(&new, &new), [0; 0]);
        assert_eq!(new_changes(&[], &new), [1, 2]);
    }
}

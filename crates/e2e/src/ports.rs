//! Allocates port numbers for Services. Each number is allocated only once. Does I/O.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::sync::{Mutex, PoisonError};

use k8s_openapi::api::core::v1::{Pod, Service};
use kube::api::ListParams;
use kube::{Api, Client};

use crate::failure::Failure;

/// The range of the allocated ports: above the ports of common daemons, and below nodePorts and outgoing source ports.
const PORT_RANGE: RangeInclusive<u16> = 20_000..=29_999;
/// The nodePorts that the API server assigns last, so that tests can choose them.
const NODE_PORT_RANGE: RangeInclusive<u16> = 30_000..=30_085;

static ALLOCATED_PORTS: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

/// Returns `N` free ports. Ports in use are the hostPorts of pods, the ports and nodePorts of Services, and the ports
/// of other tests.
pub(crate) async fn allocate_ports<const N: usize>(client: &Client) -> Result<[u16; N], Failure> {
    // Test processes that run at the same time start at different ports.
    let start_offset = usize::try_from(std::process::id() % 97).unwrap_or(0) * 100;
    allocate_from_candidates(client, PORT_RANGE.skip(start_offset).chain(PORT_RANGE.take(start_offset))).await
}

/// Returns `N` free ports from the range of nodePorts. A Service may use them as its nodePort or healthCheckNodePort
/// too.
pub(crate) async fn allocate_node_ports<const N: usize>(client: &Client) -> Result<[u16; N], Failure> {
    allocate_from_candidates(client, NODE_PORT_RANGE).await
}

async fn allocate_from_candidates<const N: usize>(
    client: &Client,
    candidates: impl Iterator<Item = u16>,
) -> Result<[u16; N], Failure> {
    let used_ports = list_used_ports(client).await?;
    let mut allocated_ports = ALLOCATED_PORTS.lock().unwrap_or_else(PoisonError::into_inner);
    let free_ports = candidates.filter(|port| !used_ports.contains(port) && !allocated_ports.contains(port));
    let ports: Vec<u16> = free_ports.take(N).collect();
    allocated_ports.extend(&ports);
    ports.try_into().map_err(|ports: Vec<u16>| {
        Failure::UnexpectedState(format!("only the ports {ports:?} are free, expected {N} free ports"))
    })
}

async fn list_used_ports(client: &Client) -> Result<BTreeSet<u16>, Failure> {
    let pods = Api::<Pod>::all(client.clone()).list(&ListParams::default()).await?;
    let services = Api::<Service>::all(client.clone()).list(&ListParams::default()).await?;
    let containers = pods.items.iter().flat_map(|pod| pod.spec.iter().flat_map(|spec| &spec.containers));
    let host_ports =
        containers.flat_map(|container| container.ports.iter().flatten()).filter_map(|port| port.host_port);
    let specs = services.items.iter().filter_map(|service| service.spec.as_ref());
    let service_ports = specs.flat_map(|spec| {
        let ports = spec.ports.iter().flatten().flat_map(|port| [Some(port.port), port.node_port]);
        ports.chain([spec.health_check_node_port]).flatten()
    });
    Ok(host_ports.chain(service_ports).filter_map(|port| port.try_into().ok()).collect())
}

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

static ALLOCATED_PORTS: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

/// Returns `N` free ports. A port is free if it is no hostPort of a pod, no port of a Service, and no port of another
/// test.
pub(crate) async fn allocate<const N: usize>(client: &Client) -> Result<[u16; N], Failure> {
    let used_ports = list_used_ports(client).await?;
    let mut allocated_ports = ALLOCATED_PORTS.lock().unwrap_or_else(PoisonError::into_inner);
    // Test processes that run at the same time start at different ports.
    let start = usize::try_from(std::process::id() % 97).unwrap_or(0) * 100;
    let rotated_port_range = PORT_RANGE.skip(start).chain(PORT_RANGE.take(start));
    let free_ports =
        rotated_port_range.filter(|port| !used_ports.contains(port) && !allocated_ports.contains(port));
    let ports: Vec<u16> = free_ports.take(N).collect();
    allocated_ports.extend(&ports);
    ports.try_into().map_err(|ports: Vec<u16>| {
        Failure::UnexpectedState(format!(
            "only {} ports are free in {PORT_RANGE:?}, expected {N}",
            ports.len()
        ))
    })
}

async fn list_used_ports(client: &Client) -> Result<BTreeSet<u16>, Failure> {
    let pods = Api::<Pod>::all(client.clone()).list(&ListParams::default()).await?;
    let services = Api::<Service>::all(client.clone()).list(&ListParams::default()).await?;
    let containers = pods.items.iter().flat_map(|pod| pod.spec.iter().flat_map(|spec| &spec.containers));
    let host_ports =
        containers.flat_map(|container| container.ports.iter().flatten()).filter_map(|port| port.host_port);
    let specs = services.items.iter().filter_map(|service| service.spec.as_ref());
    let service_ports = specs.flat_map(|spec| spec.ports.iter().flatten()).map(|port| port.port);
    Ok(host_ports.chain(service_ports).filter_map(|port| port.try_into().ok()).collect())
}

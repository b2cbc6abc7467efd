//! Ports for Services, each given out once. Does I/O.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::sync::{Mutex, PoisonError};

use k8s_openapi::api::core::v1::{Pod, Service};
use kube::api::ListParams;
use kube::{Api, Client};

use crate::Failure;

/// Below every `nodePort` and the ports of outgoing connections, above those of well-known daemons.
const RANGE: RangeInclusive<u16> = 20_000..=29_999;

static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

/// `N` ports that no pod holds, no Service asks for, and no other test was given.
pub(crate) async fn free<const N: usize>(client: &Client) -> Result<[u16; N], Failure> {
    let taken = taken(client).await?;
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    // Runs at the same time begin at different places.
    let start = usize::from(u16::try_from(std::process::id() % 97).unwrap_or(0)) * 100;
    let free = RANGE.cycle_from(start).filter(|port| !taken.contains(port) && !given.contains(port));
    let ports: Vec<u16> = free.take(N).collect();
    given.extend(&ports);
    let too_few =
        |ports: Vec<u16>| Failure::Unmet(format!("only {} ports are free in {RANGE:?}", ports.len()));
    ports.try_into().map_err(too_few)
}

trait CycleFrom {
    fn cycle_from(self, start: usize) -> impl Iterator<Item = u16>;
}

impl CycleFrom for RangeInclusive<u16> {
    fn cycle_from(self, start: usize) -> impl Iterator<Item = u16> {
        self.clone().skip(start).chain(self.take(start))
    }
}

async fn taken(client: &Client) -> Result<BTreeSet<u16>, Failure> {
    let pods = Api::<Pod>::all(client.clone()).list(&ListParams::default()).await?;
    let services = Api::<Service>::all(client.clone()).list(&ListParams::default()).await?;
    let pods = pods.items.iter().flat_map(|pod| pod.spec.iter().flat_map(|spec| &spec.containers));
    let held = pods.flat_map(|container| container.ports.iter().flatten()).filter_map(|port| port.host_port);
    let specs = services.items.iter().filter_map(|service| service.spec.as_ref());
    let asked = specs.flat_map(|spec| spec.ports.iter().flatten()).map(|port| port.port);
    Ok(held.chain(asked).filter_map(|port| port.try_into().ok()).collect())
}

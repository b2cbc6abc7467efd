//! Tests of Services that the node agents forward. The agents hold the ports of such Services.

use akrobateo_core::annotations::WORKLOAD;

use super::*;
use crate::fixtures::ServiceBuilder;

fn shared(name: &str, created_at: i64) -> ServiceBuilder {
    service(name).tcp(80).created_at(created_at).annotation(WORKLOAD, "Shared")
}

fn port_80_on(nodes: &[&str]) -> OccupiedPorts {
    let port = NonZeroU16::new(80).unwrap();
    let frontend = Frontend { family: Family::V4, protocol: Protocol::Tcp, port };
    OccupiedPorts { frontends: [frontend].into(), nodes: names(nodes) }
}

#[test]
fn port_that_an_agent_serves_belongs_to_its_service() {
    let mut world = World::new();
    world.apply([service("older").tcp(80).created_at(1), shared("younger", 2)]);
    assert_eq!(world.allowed_nodes("older"), ALL_NODES);
    // The agent of n2 did not know the older Service yet. The older Service has no proxies yet.
    world.occupied_port_overrides.insert(key("younger"), port_80_on(&["n2"]));
    world.allocate();
    assert_eq!(world.allowed_nodes("older"), ["n1", "n3"]);
    assert_eq!(world.allowed_nodes("younger"), ["n2"]);
    // Not even the proxies of the older Service take the port, because the rules of the agent come first.
    world.sync_workloads();
    world.restart();
    world.allocate();
    assert_eq!(world.allowed_nodes("younger"), ["n2"]);
}

#[test]
fn port_that_proxies_hold_is_not_given_to_the_agents() {
    let mut world = World::new();
    world.apply([service("proxies").tcp(80).created_at(2)]);
    world.sync_workloads();
    world.apply([shared("older", 1)]);
    assert!(world.allocation("older").is_denied());
    world.restart();
    world.allocate();
    assert!(world.allocation("older").is_denied());
    assert_eq!(world.allowed_nodes("proxies"), ALL_NODES);
}

#[test]
fn agents_decide_between_two_shared_services() {
    let mut world = World::new();
    world.apply([shared("a", 1), shared("b", 2)]);
    assert_eq!(world.allowed_nodes("a"), ALL_NODES);
    world.occupied_port_overrides.insert(key("a"), port_80_on(&["n1"]));
    world.occupied_port_overrides.insert(key("b"), port_80_on(&["n2", "n3"]));
    world.allocate();
    assert_eq!(world.allowed_nodes("a"), ["n1"]);
    assert_eq!(world.allowed_nodes("b"), ["n2", "n3"]);
}

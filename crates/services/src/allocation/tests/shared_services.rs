//! Tests of Services that the node agents forward. The agents use the ports of such Services.

use akrobateo_core::annotations::WORKLOAD;

use super::*;
use crate::fixtures::ServiceBuilder;

fn shared(name: &str, created_at_seconds: i64) -> ServiceBuilder {
    service(name).tcp(80).created_at(created_at_seconds).annotation(WORKLOAD, "Shared")
}

fn port_80_on_nodes(nodes: &[&str]) -> OccupiedPorts {
    let port = NonZeroU16::new(80).unwrap();
    let frontend = Frontend { family: Family::V4, protocol: Protocol::Tcp, port };
    OccupiedPorts { frontends: [frontend].into(), nodes: names(nodes), is_assumed: false }
}

#[test]
fn service_owns_the_port_that_an_agent_serves() {
    let mut cluster = ClusterModel::new();
    cluster.apply([service("older").tcp(80).created_at(1), shared("younger", 2)]);
    assert_eq!(cluster.allowed_nodes("older"), ALL_NODES);
    // The agent of n2 already serves the younger Service, because the agent did not know the older Service yet. The
    // older Service has no proxies yet.
    cluster.occupied_port_overrides.insert(key("younger"), port_80_on_nodes(&["n2"]));
    cluster.allocate();
    assert_eq!(cluster.allowed_nodes("older"), ["n1", "n3"]);
    assert_eq!(cluster.allowed_nodes("younger"), ["n2"]);
    // The proxies of the older Service do not take the port, because the rules of the agent receive packets first.
    cluster.sync_workloads();
    cluster.restart();
    cluster.allocate();
    assert_eq!(cluster.allowed_nodes("younger"), ["n2"]);
}

#[test]
fn agents_do_not_get_a_port_of_running_proxies() {
    let mut cluster = ClusterModel::new();
    cluster.apply([service("proxies").tcp(80).created_at(2)]);
    cluster.sync_workloads();
    cluster.apply([shared("older", 1)]);
    assert!(cluster.allocation("older").is_denied());
    cluster.restart();
    cluster.allocate();
    assert!(cluster.allocation("older").is_denied());
    assert_eq!(cluster.allowed_nodes("proxies"), ALL_NODES);
}

#[test]
fn agents_decide_which_shared_service_gets_the_port() {
    let mut cluster = ClusterModel::new();
    cluster.apply([shared("a", 1), shared("b", 2)]);
    assert_eq!(cluster.allowed_nodes("a"), ALL_NODES);
    cluster.occupied_port_overrides.insert(key("a"), port_80_on_nodes(&["n1"]));
    cluster.occupied_port_overrides.insert(key("b"), port_80_on_nodes(&["n2", "n3"]));
    cluster.allocate();
    assert_eq!(cluster.allowed_nodes("a"), ["n1"]);
    assert_eq!(cluster.allowed_nodes("b"), ["n2", "n3"]);
}

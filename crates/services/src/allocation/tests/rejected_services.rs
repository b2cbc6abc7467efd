//! Tests of rejected Services that the node agents serve. A rejected Service keeps its previous ports, and gets no port
//! of another Service.

use akrobateo_core::annotations::{IP_MODE, WORKLOAD};

use super::*;
use crate::fixtures::ServiceBuilder;

/// Returns a shared Service. A second call with another port and an invalid annotation is an edit of this Service.
fn edited(port: u16) -> ServiceBuilder {
    service("edited").tcp(port).created_at(1).annotation(WORKLOAD, "Shared")
}

fn rejected(port: u16) -> ServiceBuilder {
    edited(port).annotation(IP_MODE, "typo")
}

fn assumed_ports(port: u16) -> OccupiedPorts {
    let port = NonZeroU16::new(port).unwrap();
    let frontend = Frontend { family: Family::V4, protocol: Protocol::Tcp, port };
    OccupiedPorts { frontends: [frontend].into(), nodes: names(&ALL_NODES), is_assumed: true }
}

fn previous_ports(cluster: &ClusterModel, uid: Option<&str>) -> Option<Vec<String>> {
    let uid = uid.map_or_else(|| cluster.services[&key("edited")].uid(), |uid| Some(uid.to_owned()));
    let ports = cluster.allocations.previous_ports(&key("edited"), uid.as_ref(), &cluster.nodes)?;
    let ports_on_node = |node: &String| {
        let ports = ports.frontends.iter().map(|frontend| frontend.port.to_string());
        format!("{node}: {}", ports.collect::<Vec<_>>().join(","))
    };
    Some(ports.nodes.iter().map(ports_on_node).collect())
}

#[test]
fn allocation_contains_the_last_accepted_ports_of_a_rejected_service() {
    let mut cluster = ClusterModel::new();
    cluster.apply([edited(80).uid("first"), service("other").tcp(80).annotation(NODE_SELECTOR, "name=n2")]);
    assert_eq!(previous_ports(&cluster, None).unwrap(), ["n1: 80", "n2: 80", "n3: 80"]);
    for _ in 0..2 {
        let ports =
            cluster.allocations.previous_ports(&key("edited"), Some(&"first".to_owned()), &cluster.nodes);
        cluster.occupied_port_overrides.insert(key("edited"), ports.unwrap());
        cluster.apply([rejected(81).uid("first")]);
        assert_eq!(previous_ports(&cluster, None).unwrap(), ["n1: 80", "n2: 80", "n3: 80"]);
        assert!(cluster.allocation("other").is_denied());
    }
    assert_eq!(previous_ports(&cluster, Some("second")), None);
    cluster.restart();
    assert_eq!(previous_ports(&cluster, None), None);
}

#[test]
fn assumed_ports_do_not_include_the_ports_of_another_workload() {
    let mut cluster = ClusterModel::new();
    cluster.apply([service("other").tcp(81).created_at(2).annotation(NODE_SELECTOR, "name!=n3")]);
    cluster.sync_workloads();
    cluster.occupied_port_overrides.insert(key("edited"), assumed_ports(81));
    cluster.published_nodes.insert(key("edited"), names(&ALL_NODES));
    cluster.restart();
    cluster.apply([rejected(81)]);
    assert_eq!(cluster.allowed_nodes("other"), ["n1", "n2"]);
}

#[test]
fn assumed_ports_come_after_the_ports_of_published_services() {
    let mut cluster = ClusterModel::new();
    cluster.occupied_port_overrides.insert(key("edited"), assumed_ports(81));
    cluster.published_nodes.insert(key("edited"), names(&ALL_NODES));
    // The workload of the other Service does not exist at the moment.
    cluster.published_nodes.insert(key("other"), names(&["n1", "n2"]));
    cluster.apply([rejected(81), service("other").tcp(81).created_at(2)]);
    assert_eq!(cluster.allowed_nodes("other"), ["n1", "n2"]);
    // A Service that is not published waits for the ports of the rejected Service.
    cluster.published_nodes.remove(&key("other"));
    cluster.restart();
    cluster.apply([service("other").tcp(81).created_at(0)]);
    assert!(cluster.allocation("other").is_denied());
}

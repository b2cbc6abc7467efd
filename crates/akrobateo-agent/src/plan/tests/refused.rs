//! Tests of the Services that a node refuses.

use super::*;

#[test]
fn nodeport_of_a_refused_service_is_not_available() {
    let mut cluster = TestCluster::new();
    // A process of the node uses the port of the first Service. kube-proxy still forwards its nodePort on the node.
    cluster.listening_frontends.insert(tcp(7600));
    cluster.apply(service("owner").tcp(7600).node_port(30_999).created_at(1));
    cluster.apply(service("later").tcp(30_999).created_at(2));
    let plan = cluster.plan();
    assert!(plan.config.services.is_empty());
    let problems = [
        port_problem("default/owner", "7600/TCP", PortOwner::Process),
        port_problem("default/later", "30999/TCP", PortOwner::Service("default/owner".to_owned())),
    ];
    assert_eq!(plan.refused_ports, problems);
}

#[test]
fn report_has_few_conflicts_of_each_service() {
    let mut cluster = TestCluster::new();
    let with_many_ports = |name: &str| (1000..2000).fold(service(name), ServiceBuilder::tcp);
    cluster.apply(with_many_ports("owner").created_at(1));
    cluster.apply(with_many_ports("a").created_at(2));
    cluster.apply(with_many_ports("b").created_at(3));
    let plan = cluster.plan();
    let refused_services: Vec<_> = plan.refused_ports.iter().map(|problem| &problem.service[..]).collect();
    assert_eq!(refused_services, [["default/a"; 3], ["default/b"; 3]].concat());
}

#[test]
fn service_keeps_its_ports_after_a_long_absence_of_the_agent() {
    let mut cluster = TestCluster::new();
    cluster.apply(service("web").tcp(80).tcp(30_999).created_at(2));
    assert_eq!(cluster.served_names(), ["default/web"]);
    // While the agent is away, the operator removes the node's address from the status, and other Services use the
    // ports: an older Service, and a Service that is published on this node.
    cluster.apply(service("older").tcp(80).created_at(1));
    cluster.apply(service("published").tcp(80).created_at(3).published("10.0.0.1", "Proxy", "akrobateo"));
    cluster.apply(service("later").tcp(7600).node_port(30_999).created_at(3));
    cluster.restart();
    assert_eq!(cluster.served_names(), ["default/later", "default/web"]);
    // A new Service with the same name has no ports.
    cluster.apply(service("web").uid("new").tcp(80).created_at(4));
    cluster.restart();
    assert_eq!(cluster.served_names(), ["default/later", "default/published"]);
    // Without rules in the kernel, the node gives its ports to the Service that is published there.
    cluster.restart();
    cluster.installed.frontends.clear();
    assert_eq!(cluster.served_names(), ["default/later", "default/published"]);
}

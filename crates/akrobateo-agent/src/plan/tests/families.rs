//! Tests of Services with different address families that use the same port.

use super::*;

fn service_with_families(name: &str, created_at: i64, families: &[&str]) -> ServiceBuilder {
    let cluster_ip = |family: &&str| if *family == "IPv4" { "10.97.0.7" } else { "fd97::7" };
    let cluster_ips: Vec<_> = families.iter().map(cluster_ip).collect();
    service(name).tcp(80).created_at(created_at).families(families).cluster_ips(&cluster_ips)
}

#[test]
fn services_of_different_families_share_a_port() {
    let mut cluster = TestCluster::new();
    cluster.apply(service_with_families("a", 1, &["IPv4"]));
    cluster.apply(service_with_families("b", 2, &["IPv6"]));
    let plan = cluster.plan();
    let services = plan.config.services.iter().map(|service| (&service.name[..], &service.families[..]));
    let services: Vec<_> = services.collect();
    assert_eq!(services, [("default/a", &[Family::V4][..]), ("default/b", &[Family::V6][..])]);
    assert!(plan.refused_ports.is_empty());
    // Both Services keep their port after a restart of the agent.
    cluster.apply(service_with_families("a", 1, &["IPv4"]).published("10.0.0.1", "Proxy", "akrobateo"));
    cluster.restart();
    assert_eq!(cluster.served_names(), ["default/a", "default/b"]);
}

#[test]
fn dual_stack_service_needs_its_port_in_both_families() {
    let owner = || service_with_families("owner", 1, &["IPv4"]);
    let dual_stack = || service_with_families("dual-stack", 2, &["IPv4", "IPv6"]);
    let mut cluster = TestCluster::new();
    cluster.apply(owner());
    cluster.apply(dual_stack());
    let plan = cluster.plan();
    assert_eq!(plan.config.services[0].name, "default/owner");
    let problem =
        port_problem("default/dual-stack", "80/TCP", PortOwner::Service("default/owner".to_owned()));
    assert_eq!(plan.refused_ports, [problem]);
    // The refused Service does not reserve the other family.
    cluster.apply(service_with_families("ipv6", 3, &["IPv6"]));
    assert_eq!(cluster.served_names(), ["default/ipv6", "default/owner"]);
    cluster.services.remove(&key("owner"));
    assert_eq!(cluster.served_names(), ["default/ipv6"]);
    cluster.services.remove(&key("ipv6"));
    assert_eq!(cluster.served_names(), ["default/dual-stack"]);
    // A Service that owns its port in both families does not lose a family to an older Service.
    cluster.apply(owner());
    assert_eq!(cluster.served_names(), ["default/dual-stack"]);
}

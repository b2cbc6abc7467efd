//! Tests of rejected Services. A node continues to serve a rejected Service with its last valid settings.

use super::*;

/// Makes a plan, and returns the ports that the node serves, in the order of the Service.
fn served_ports(cluster: &mut TestCluster) -> Vec<String> {
    let services = cluster.plan().config.services;
    let ports = services.iter().flat_map(|service| &service.ports);
    ports.map(|port| format!("{}/{}", port.port, port.protocol.api_name())).collect()
}

#[test]
fn rejected_service_keeps_its_last_valid_settings() {
    let mut cluster = TestCluster::new();
    let web = || service("web").tcp(80).published("10.0.0.1", "Proxy", "akrobateo");
    cluster.apply(web());
    cluster.set_endpoint("web", "n1");
    cluster.served_names();
    cluster.apply(web().tcp(443).annotation(IP_MODE, "typo"));
    cluster.set_endpoint("web", "n2");
    let config = cluster.plan().config;
    assert_eq!((config.services[0].ports.len(), config.services[0].ports[0].endpoints[0].node), (1, None));
    // A restarted agent learns from the table in the kernel which ports of the Service the node serves.
    cluster.restart();
    assert_eq!(served_ports(&mut cluster), ["80/TCP"]);
}

#[test]
fn rejected_service_keeps_the_settings_in_the_configuration_of_the_earlier_process() {
    let mut cluster = TestCluster::new();
    let web = || service("web").tcp(80).published("10.0.0.1", "Proxy", "akrobateo");
    cluster.apply(web().source_ranges(&["10.0.0.0/8"]).annotation(CLIENT_ADDRESS, "masquerade"));
    let services = cluster.plan().config.services;
    cluster.apply(web().source_ranges(&["0.0.0.0/0"]).annotation(IP_MODE, "typo"));
    cluster.restart();
    cluster.installed.services =
        services.iter().map(|service| (service.name.clone(), service.clone())).collect();
    assert_eq!(cluster.plan().config.services, services);
    // When the Service is valid again, it gets its present settings.
    cluster.apply(web());
    assert_ne!(cluster.plan().config.services, services);
    // The invalid edit has also changed the number of the port.
    let other_port = service("web").tcp(81).published("10.0.0.1", "Proxy", "akrobateo");
    cluster.apply(other_port.annotation(IP_MODE, "typo"));
    cluster.restart();
    cluster.installed = InstalledServices {
        frontends: [(tcp(80), services[0].identity())].into(),
        services: services.iter().map(|service| (service.name.clone(), service.clone())).collect(),
    };
    cluster.set_endpoint("web", "n1");
    assert_eq!(served_ports(&mut cluster), ["80/TCP"]);
    assert_eq!(cluster.plan().config.services[0].ports[0].endpoints.len(), 1);
}

#[test]
fn node_reports_a_published_rejected_service_without_settings() {
    let mut cluster = TestCluster::new();
    let web = || service("web").tcp(80).published("10.0.0.1", "Proxy", "akrobateo");
    cluster.apply(web());
    cluster.apply(service("elsewhere").tcp(81).annotation(IP_MODE, "typo"));
    let proxies = service("proxies").tcp(82).published("10.0.0.1", "VIP", "akrobateo");
    cluster.apply(proxies.annotation(WORKLOAD, "DaemonSet").annotation(IP_MODE, "typo"));
    cluster.served_names();
    cluster.apply(web().annotation(IP_MODE, "typo"));
    assert_eq!(cluster.plan().unserved_services, Vec::<String>::new());
    // After a restart of the node, the kernel has no rules, so the settings of the Service are lost.
    cluster.restart();
    cluster.installed.frontends.clear();
    let plan = cluster.plan();
    assert!(plan.config.services.is_empty());
    assert_eq!(plan.unserved_services, ["default/web"]);
    // When the operator has removed the address of the node, the report is not necessary.
    cluster.apply(service("web").tcp(80).annotation(IP_MODE, "typo"));
    assert_eq!(cluster.plan().unserved_services, Vec::<String>::new());
    cluster.apply(web());
    let plan = cluster.plan();
    assert_eq!((plan.config.services.len(), plan.unserved_services), (1, Vec::new()));
}

#[test]
fn service_keeps_its_settings_when_an_edit_adds_a_reserved_port() {
    let mut cluster = TestCluster::new();
    cluster.set_reserved_ports("22");
    let web = || service("web").tcp(80).published("10.0.0.1", "Proxy", "akrobateo");
    cluster.apply(web());
    cluster.served_names();
    cluster.apply(web().tcp(22).tcp(443));
    assert_eq!(served_ports(&mut cluster), ["80/TCP"]);
    cluster.restart();
    assert_eq!(served_ports(&mut cluster), ["80/TCP"]);
}

#[test]
fn service_releases_only_the_port_that_becomes_reserved() {
    let mut cluster = TestCluster::new();
    let web = || service("web").tcp(80).udp(80).tcp(443).published("10.0.0.1", "Proxy", "akrobateo");
    for service in [web(), web().annotation(IP_MODE, "typo")] {
        cluster.set_reserved_ports("22");
        cluster.apply(web());
        assert_eq!(served_ports(&mut cluster).len(), 3);
        cluster.apply(service);
        // The agent reads the reserved ports only at its start.
        cluster.restart();
        cluster.set_reserved_ports("80");
        assert_eq!(served_ports(&mut cluster), ["80/UDP", "443/TCP"]);
        assert_eq!(cluster.plan().unserved_services, Vec::<String>::new());
        // The Service does not get the port back while it is rejected.
        cluster.set_reserved_ports("443");
        assert_eq!(served_ports(&mut cluster), ["80/UDP"]);
        cluster.set_reserved_ports("80,443,udp/80");
        assert_eq!(served_ports(&mut cluster), Vec::<String>::new());
        assert_eq!(cluster.plan().unserved_services, ["default/web"]);
    }
}

#[test]
fn rejected_service_holds_only_ports_that_are_not_reserved() {
    let mut cluster = TestCluster::new();
    let web = || service("web").tcp(80).udp(443).created_at(1).published("10.0.0.1", "Proxy", "akrobateo");
    cluster.apply(web());
    cluster.served_names();
    cluster.restart();
    cluster.set_reserved_ports("80");
    cluster.apply(web().udp(53));
    cluster.apply(service("other").udp(443).created_at(0));
    assert_eq!(cluster.served_names(), ["default/web"]);
    cluster.apply(service("other").udp(53).created_at(2));
    assert_eq!(cluster.served_names(), ["default/other", "default/web"]);
}

#[test]
fn rejected_service_does_not_take_the_port_of_another_service_after_a_restart() {
    let mut cluster = TestCluster::new();
    // The agent decides about Service edited first, because the name precedes the name of the other Service.
    let edited = |port| service("edited").tcp(port).created_at(1).published("10.0.0.1", "Proxy", "akrobateo");
    cluster.apply(edited(81));
    cluster.apply(service("web").tcp(80).created_at(2).published("10.0.0.1", "Proxy", "akrobateo"));
    assert_eq!(cluster.served_names(), ["default/edited", "default/web"]);
    cluster.apply(edited(80).annotation(IP_MODE, "typo"));
    assert_eq!(served_ports(&mut cluster), ["81/TCP", "80/TCP"]);
    cluster.restart();
    let plan = cluster.plan();
    assert_eq!((&plan.config.services[0].name[..], plan.config.services.len()), ("default/web", 1));
    assert_eq!(plan.unserved_services, ["default/edited"]);
}

#[test]
fn rejected_service_keeps_the_endpoints_of_a_renamed_port() {
    let named_port = |name: &str, port: u16| {
        let mut web = service("web").tcp(port).published("10.0.0.1", "Proxy", "akrobateo").build();
        web.spec.as_mut().unwrap().ports.as_mut().unwrap()[0].name = Some(name.to_owned());
        web
    };
    let slice = |port_name: &str| {
        json!({
            "addressType": "IPv4", "ports": [{ "name": port_name, "port": 8080 }],
            "endpoints": [{ "addresses": ["10.244.1.10"], "nodeName": "n1" }],
        })
    };
    let mut cluster = TestCluster::new();
    let mut endpoint_count = |mut web: Service, is_rejected: bool, slice: serde_json::Value| {
        if is_rejected {
            web.annotations_mut().insert(IP_MODE.to_owned(), "typo".to_owned());
        }
        cluster.services.insert(key("web"), web);
        cluster.slices.insert(key("web"), vec![Arc::new(serde_json::from_value(slice).unwrap())]);
        cluster.plan().config.services[0].ports[0].endpoints.len()
    };
    assert_eq!(endpoint_count(named_port("old", 80), false, slice("old")), 1);
    assert_eq!(endpoint_count(named_port("new", 80), true, slice("new")), 1);
    // The name of a port without a successor stays.
    assert_eq!(endpoint_count(named_port("other", 81), true, slice("new")), 1);
}

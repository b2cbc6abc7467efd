//! Services as in widely used Helm charts: several Services use the same port.

use std::slice;

use akrobateo_core::Protocol;
use e2e::backend::{PORT, backend_pod};
use e2e::{Failure, ServiceBuilder, TestMode, ensure, ensure_eq, service, test};
use futures::future::try_join_all;

/// The port of Istio's TCP gateway. The nodePort of the gateway has the same number, as in Istio's chart. The number is
/// from the range that the API server assigns last.
const GATEWAY_PORT: u16 = 30_014;
const DNS_PORT: u16 = 53;

#[tokio::test]
async fn istio_gateway_with_equal_port_and_node_port_is_exposed() -> Result<(), Failure> {
    test(async |namespace| {
        namespace.start_backend().await?;
        let [status_port] = namespace.allocate_ports().await?;
        let gateway =
            service("istio-ingressgateway").tcp(GATEWAY_PORT).node_port(GATEWAY_PORT).tcp(status_port);
        namespace.expose(&gateway).await?;
        namespace.wait_condition(&gateway, "Exposed", &[]).await?;
        namespace.ensure_no_warnings(&gateway).await
    })
    .await
}

/// Returns the four Services of Pi-hole's chart for a dual-stack cluster. The Services share one port.
fn pihole_services() -> Vec<ServiceBuilder> {
    [
        ("pihole-dns-tcp", "IPv4", Protocol::Tcp),
        ("pihole-dns-udp", "IPv4", Protocol::Udp),
        ("pihole-dns-tcp-ipv6", "IPv6", Protocol::Tcp),
        ("pihole-dns-udp-ipv6", "IPv6", Protocol::Udp),
    ]
    .map(|(name, family, protocol)| service(name).families(&[family]).port(protocol, DNS_PORT, PORT))
    .into()
}

#[tokio::test]
async fn pihole_services_of_both_families_and_protocols_share_port_53() -> Result<(), Failure> {
    test(async |namespace| {
        let nodes = namespace.cluster().list_nodes().await?;
        namespace.start_backend_on(&nodes[1].name).await?;
        // The chart sets externalTrafficPolicy Local.
        let services_with_policy_local: Vec<_> =
            pihole_services().into_iter().map(ServiceBuilder::traffic_policy_local).collect();
        try_join_all(services_with_policy_local.iter().map(|service| namespace.apply(service))).await?;
        for service in &services_with_policy_local {
            let replies = namespace.wait_exposed_on(service, slice::from_ref(&nodes[1])).await?;
            for reply in &replies {
                ensure_eq("client", &Some(reply.answer()?.client_address.ip()), &reply.client_address)?;
            }
            namespace.wait_condition(service, "Exposed", &[]).await?;
        }
        let services = pihole_services();
        try_join_all(services.iter().map(|service| namespace.apply(service))).await?;
        for service in &services {
            namespace.wait_exposed(service).await?;
            namespace.wait_condition(service, "Exposed", &[]).await?;
            namespace.ensure_no_warnings(service).await?;
        }
        Ok(())
    })
    .await
}

/// Redpanda and Strimzi create one Service for each broker, with externalTrafficPolicy Local and the same ports.
#[tokio::test]
async fn broker_services_share_ports_on_the_nodes_of_their_brokers() -> Result<(), Failure> {
    test(async |namespace| {
        let nodes = namespace.cluster().list_nodes().await?;
        let [kafka_port, admin_port] = namespace.allocate_ports().await?;
        let brokers: Vec<_> = (0..nodes.len()).map(|index| format!("broker-{index}")).collect();
        let services: Vec<_> = brokers
            .iter()
            .map(|broker| {
                let service = service(&format!("lb-{broker}")).tcp(kafka_port).tcp(admin_port);
                service.add_selector_label("broker", broker).traffic_policy_local()
            })
            .collect();
        for service in &services {
            namespace.apply(service).await?;
        }
        // The brokers' operator may wait for all addresses before it starts a broker. Only the oldest Service claims
        // the ports. kube-proxy must not forward these ports for the other Services.
        for (index, service) in services.iter().enumerate() {
            let is_forwarded_by_kube_proxy = index == 0 && namespace.mode() == TestMode::Dedicated;
            let ip_mode = if is_forwarded_by_kube_proxy { "VIP" } else { "Proxy" };
            namespace.wait_published(&service.clone().expect_ip_mode(ip_mode), &nodes).await?;
            namespace.wait_condition(service, "NoEndpoints", &[]).await?;
        }
        for (broker, node) in brokers.iter().zip(&nodes) {
            let pod = backend_pod().named(broker).label("broker", broker).on_node(&node.name);
            namespace.start_pod(&pod).await?;
        }
        for ((service, broker), node) in services.iter().zip(&brokers).zip(&nodes) {
            let replies = namespace.wait_exposed_on(service, slice::from_ref(node)).await?;
            for reply in &replies {
                let answer = reply.answer()?;
                ensure_eq("broker", &answer.host, broker)?;
                ensure(Some(answer.client_address.ip()) == reply.client_address, || {
                    format!(
                        "{}: the broker saw {}, expected {:?}",
                        reply.target, answer.client_address, reply.client_address
                    )
                })?;
            }
            namespace.wait_condition(service, "Exposed", &[]).await?;
        }
        Ok(())
    })
    .await
}

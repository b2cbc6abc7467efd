//! Services are reached on every node's address: with ipMode VIP, where kube-proxy may answer in the proxies' stead,
//! and with ipMode Proxy, where nobody but the proxies does.

use akrobateo_core::Protocol;
use e2e::{Failure, Namespace, ServiceBuilder, backend, eventually, service, test};

/// Applies a Service, and sees it reached in both modes. The backend sees in the second that the proxies forward.
async fn is_exposed(namespace: &Namespace, service: &ServiceBuilder) -> Result<(), Failure> {
    namespace.apply(service).await?;
    namespace.exposed(service).await?;
    let service = service.clone().proxy_mode();
    namespace.apply(&service).await?;
    eventually("the answers come by way of the proxies", async || {
        let replies = namespace.exposed(&service).await?;
        namespace.came_through_proxies(&service, &replies).await
    })
    .await
}

#[tokio::test]
async fn a_service_is_reached_over_tcp_and_udp_on_every_nodes_address() -> Result<(), Failure> {
    test(async |namespace| {
        namespace.backend().await?;
        let [tcp, udp] = namespace.ports().await?;
        is_exposed(namespace, &service("web").tcp(tcp).udp(udp)).await
    })
    .await
}

#[tokio::test]
async fn tcp_and_udp_share_a_port_number() -> Result<(), Failure> {
    test(async |namespace| {
        namespace.backend().await?;
        let [port] = namespace.ports().await?;
        let dns = service("dns").tcp(port).port(Protocol::Udp, port, backend::OTHER_PORT);
        is_exposed(namespace, &dns).await
    })
    .await
}

#[tokio::test]
async fn a_service_may_be_ipv4_only() -> Result<(), Failure> {
    test(async |namespace| of_families(namespace, &["IPv4"]).await).await
}

#[tokio::test]
async fn a_service_may_be_ipv6_only() -> Result<(), Failure> {
    test(async |namespace| of_families(namespace, &["IPv6"]).await).await
}

#[tokio::test]
async fn a_service_may_be_dual_stack() -> Result<(), Failure> {
    test(async |namespace| of_families(namespace, &["IPv4", "IPv6"]).await).await
}

#[tokio::test]
async fn the_first_family_of_a_dual_stack_service_may_be_ipv6() -> Result<(), Failure> {
    test(async |namespace| of_families(namespace, &["IPv6", "IPv4"]).await).await
}

async fn of_families(namespace: &Namespace, families: &[&str]) -> Result<(), Failure> {
    namespace.backend().await?;
    let [port] = namespace.ports().await?;
    is_exposed(namespace, &service("web").families(families).tcp(port).udp(port)).await
}

#[tokio::test]
async fn a_service_may_have_fifty_ports_and_needs_one_container_for_them() -> Result<(), Failure> {
    test(async |namespace| {
        namespace.backend().await?;
        let many = fifty_ports(namespace.ports().await?);
        is_exposed(namespace, &many).await?;
        let pods = namespace.proxy_pods(&many).await?;
        assert!(pods.iter().all(|pod| pod.spec.as_ref().is_some_and(|spec| spec.containers.len() == 1)));
        Ok(())
    })
    .await
}

/// Each leads to a port of its own.
fn fifty_ports(ports: [u16; 50]) -> ServiceBuilder {
    (backend::FIRST_OF_FIFTY..).zip(ports).fold(service("many"), |many, (target, port)| {
        let protocol = if target % 2 == 0 { Protocol::Tcp } else { Protocol::Udp };
        many.port(protocol, port, target)
    })
}

#[tokio::test]
async fn two_services_stand_side_by_side() -> Result<(), Failure> {
    test(async |namespace| {
        namespace.backend().await?;
        let [one, other] = namespace.ports().await?;
        let blue = service("blue").tcp(one).udp(one);
        let green = service("green").port(Protocol::Tcp, other, backend::OTHER_PORT);
        is_exposed(namespace, &blue).await?;
        is_exposed(namespace, &green).await?;
        namespace.exposed(&blue.proxy_mode()).await.map(drop)
    })
    .await
}

#[tokio::test]
async fn names_may_be_as_long_as_kubernetes_lets_them_be() -> Result<(), Failure> {
    test(async |namespace| {
        let ending = "n".repeat(63 - namespace.name().len() - 1);
        let long = namespace.another(&ending).await?;
        assert_eq!(long.name().len(), 63);
        long.backend().await?;
        let [port] = long.ports().await?;
        is_exposed(&long, &service(&"s".repeat(63)).tcp(port)).await
    })
    .await
}

#[tokio::test]
async fn a_service_may_name_our_class() -> Result<(), Failure> {
    test(async |namespace| {
        namespace.backend().await?;
        let [port] = namespace.ports().await?;
        is_exposed(namespace, &service("web").tcp(port).class(akrobateo_core::LOAD_BALANCER_CLASS)).await
    })
    .await
}

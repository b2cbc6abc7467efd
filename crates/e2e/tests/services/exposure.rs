//! Services are reachable on every node's address. In dedicated mode, kube-proxy may answer with ipMode VIP, and only
//! the proxies answer with ipMode Proxy. In shared mode only the agents answer.

use akrobateo_core::Protocol;
use e2e::{Failure, Namespace, ServiceBuilder, backend, ensure, eventually, service, test};

/// Exposes a Service with both ipModes. With ipMode Proxy the node agents or the proxies must forward.
async fn expose_with_both_ip_modes(namespace: &Namespace, service: &ServiceBuilder) -> Result<(), Failure> {
    namespace.expose(service).await?;
    let service = service.clone().with_ip_mode_proxy();
    namespace.apply(&service).await?;
    eventually("Akrobateo forwards the requests", async || {
        let replies = namespace.wait_exposed(&service).await?;
        namespace.ensure_forwarded(&service, &replies).await
    })
    .await
}

#[tokio::test]
async fn service_is_reachable_over_tcp_and_udp_on_every_node_address() -> Result<(), Failure> {
    test(async |namespace| {
        namespace.start_backend().await?;
        let [tcp, udp] = namespace.allocate_ports().await?;
        expose_with_both_ip_modes(namespace, &service("web").tcp(tcp).udp(udp)).await
    })
    .await
}

#[tokio::test]
async fn tcp_and_udp_share_a_port_number() -> Result<(), Failure> {
    test(async |namespace| {
        namespace.start_backend().await?;
        let [port] = namespace.allocate_ports().await?;
        let dns = service("dns").tcp(port).port(Protocol::Udp, port, backend::SECOND_PORT);
        expose_with_both_ip_modes(namespace, &dns).await
    })
    .await
}

#[tokio::test]
async fn ipv4_service_is_exposed() -> Result<(), Failure> {
    expose_with_families(&["IPv4"]).await
}

#[tokio::test]
async fn ipv6_service_is_exposed() -> Result<(), Failure> {
    expose_with_families(&["IPv6"]).await
}

#[tokio::test]
async fn dual_stack_service_is_exposed() -> Result<(), Failure> {
    expose_with_families(&["IPv4", "IPv6"]).await
}

#[tokio::test]
async fn dual_stack_service_with_ipv6_first_is_exposed() -> Result<(), Failure> {
    expose_with_families(&["IPv6", "IPv4"]).await
}

async fn expose_with_families(families: &[&str]) -> Result<(), Failure> {
    test(async |namespace| {
        namespace.start_backend().await?;
        let [port] = namespace.allocate_ports().await?;
        let web = service("web").families(families).tcp(port).udp(port);
        expose_with_both_ip_modes(namespace, &web).await
    })
    .await
}

#[tokio::test]
async fn service_with_fifty_ports_needs_one_container_at_most() -> Result<(), Failure> {
    test(async |namespace| {
        namespace.start_backend().await?;
        let web = build_service_with_fifty_ports(namespace.allocate_ports().await?);
        expose_with_both_ip_modes(namespace, &web).await?;
        for pod in namespace.list_proxy_pods(&web).await? {
            let containers = pod.spec.map_or(0, |spec| spec.containers.len());
            ensure(containers == 1, || format!("a proxy pod has {containers} containers, expected 1"))?;
        }
        Ok(())
    })
    .await
}

/// Returns a Service whose fifty ports have fifty different target ports.
fn build_service_with_fifty_ports(ports: [u16; 50]) -> ServiceBuilder {
    (backend::FIRST_OF_FIFTY_PORTS..).zip(ports).fold(service("web"), |web, (target, port)| {
        let protocol = if target % 2 == 0 { Protocol::Tcp } else { Protocol::Udp };
        web.port(protocol, port, target)
    })
}

#[tokio::test]
async fn two_services_are_exposed_independently() -> Result<(), Failure> {
    test(async |namespace| {
        namespace.start_backend().await?;
        let [blue_port, green_port] = namespace.allocate_ports().await?;
        let blue_service = service("blue").tcp(blue_port).udp(blue_port);
        let green_service = service("green").port(Protocol::Tcp, green_port, backend::SECOND_PORT);
        expose_with_both_ip_modes(namespace, &blue_service).await?;
        expose_with_both_ip_modes(namespace, &green_service).await?;
        namespace.wait_exposed(&blue_service.with_ip_mode_proxy()).await.map(drop)
    })
    .await
}

#[tokio::test]
async fn service_and_namespace_with_names_of_63_characters_are_exposed() -> Result<(), Failure> {
    test(async |namespace| {
        let suffix = "n".repeat(63 - namespace.name().len() - 1);
        let namespace_with_long_name = namespace.create_another_namespace(&suffix).await?;
        assert_eq!(namespace_with_long_name.name().len(), 63);
        namespace_with_long_name.start_backend().await?;
        let [port] = namespace_with_long_name.allocate_ports().await?;
        expose_with_both_ip_modes(&namespace_with_long_name, &service(&"s".repeat(63)).tcp(port)).await
    })
    .await
}

#[tokio::test]
async fn service_of_the_class_akrobateo_is_exposed() -> Result<(), Failure> {
    test(async |namespace| {
        namespace.start_backend().await?;
        let [port] = namespace.allocate_ports().await?;
        let web = service("web").tcp(port).class(akrobateo_core::LOAD_BALANCER_CLASS);
        expose_with_both_ip_modes(namespace, &web).await
    })
    .await
}

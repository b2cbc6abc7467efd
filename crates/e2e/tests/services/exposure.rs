//! Services are reached on every node's address; kube-proxy may answer in the proxies' stead.

use contract::Protocol;
use e2e::{Failure, ServiceBuilder, backend, service, test};

#[tokio::test]
async fn a_service_is_reached_over_tcp_and_udp_on_every_nodes_address() -> Result<(), Failure> {
    test(async |namespace| {
        namespace.backend().await?;
        let [tcp, udp] = namespace.ports().await?;
        let web = service("web").tcp(tcp).udp(udp);
        namespace.apply(&web).await?;
        let replies = namespace.exposed(&web).await?;
        assert_eq!(replies.len(), 2 * namespace.cluster().nodes().await?.len());
        Ok(())
    })
    .await
}

#[tokio::test]
async fn tcp_and_udp_share_a_port_number() -> Result<(), Failure> {
    test(async |namespace| {
        namespace.backend().await?;
        let [port] = namespace.ports().await?;
        let dns = service("dns").tcp(port).port(Protocol::Udp, port, backend::OTHER_PORT);
        namespace.apply(&dns).await?;
        namespace.exposed(&dns).await.map(drop)
    })
    .await
}

#[tokio::test]
async fn a_service_has_the_address_families_that_it_asks_for() -> Result<(), Failure> {
    test(async |namespace| {
        namespace.backend().await?;
        for families in [["IPv4"].as_slice(), &["IPv6"], &["IPv4", "IPv6"], &["IPv6", "IPv4"]] {
            let [port] = namespace.ports().await?;
            let name = families.concat().to_lowercase();
            let web = service(&name).families(families).tcp(port).udp(port);
            namespace.apply(&web).await?;
            namespace.exposed(&web).await?;
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_service_may_have_fifty_ports() -> Result<(), Failure> {
    test(async |namespace| {
        namespace.backend().await?;
        let ports = namespace.ports().await?;
        let many = fifty_ports(ports);
        namespace.apply(&many).await?;
        namespace.exposed(&many).await?;
        let pods = namespace.proxy_pods(&many).await?;
        assert!(pods.iter().all(|pod| pod.spec.as_ref().unwrap().containers.len() == 1));
        Ok(())
    })
    .await
}

#[tokio::test]
async fn two_services_stand_side_by_side() -> Result<(), Failure> {
    test(async |namespace| {
        namespace.backend().await?;
        let [one, other] = namespace.ports().await?;
        let blue = service("blue").tcp(one).udp(one);
        let green = service("green").port(Protocol::Tcp, other, backend::OTHER_PORT);
        namespace.apply(&blue).await?;
        namespace.apply(&green).await?;
        namespace.exposed(&blue).await?;
        namespace.exposed(&green).await.map(drop)
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
        let web = service(&"s".repeat(63)).tcp(port).proxy_mode();
        long.apply(&web).await?;
        long.exposed(&web).await.map(drop)
    })
    .await
}

#[tokio::test]
async fn a_service_may_name_our_class() -> Result<(), Failure> {
    test(async |namespace| {
        namespace.backend().await?;
        let [port] = namespace.ports().await?;
        let web = service("web").tcp(port).class(contract::LOAD_BALANCER_CLASS);
        namespace.apply(&web).await?;
        namespace.exposed(&web).await.map(drop)
    })
    .await
}

/// Each leads to a port of its own.
pub(crate) fn fifty_ports(ports: [u16; 50]) -> ServiceBuilder {
    (backend::FIRST_OF_FIFTY..).zip(ports).fold(service("many"), |many, (target, port)| {
        let protocol = if target % 2 == 0 { Protocol::Tcp } else { Protocol::Udp };
        many.port(protocol, port, target)
    })
}

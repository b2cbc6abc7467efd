//! Packets through hostPort and proxy pod: much data, and flows older than the rules.

use std::net::IpAddr;
use std::time::Duration;

use akrobateo_core::Protocol;
use e2e::{Failure, Reply, Target, service, test};

/// Six fragments, in bytes.
const LARGE_DATAGRAM: usize = 8_000;
/// For an answer to one flow of datagrams, of which some may be sent too early.
const FLOW_LIMIT: Duration = Duration::from_mins(2);

#[tokio::test]
async fn datagrams_larger_than_a_packet_arrive_in_both_directions() -> Result<(), Failure> {
    test(async |namespace| {
        namespace.backend().await?;
        let [port] = namespace.ports().await?;
        let dns = service("dns").families(&["IPv6", "IPv4"]).udp(port).proxy_mode();
        namespace.apply(&dns).await?;
        for mut reply in namespace.exposed(&dns).await? {
            let server = (reply.target.host, port).into();
            reply.outcome = Ok(namespace.cluster().insist(server, LARGE_DATAGRAM, FLOW_LIMIT).await?);
            namespace.came_through_proxies(&dns, &[reply]).await?;
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_flow_of_datagrams_that_began_before_the_service_reaches_the_backend() -> Result<(), Failure> {
    test(async |namespace| {
        namespace.backend().await?;
        let [port] = namespace.ports().await?;
        let nodes = namespace.cluster().nodes().await?;
        let dns = service("dns").udp(port).proxy_mode().on(&[&nodes[0].name]);
        let host = nodes[0].addresses.iter().copied().find(IpAddr::is_ipv4).expect("the node has one");
        let flow = namespace.cluster().insist((host, port).into(), 1, FLOW_LIMIT);
        let create = async {
            namespace.apply(&dns).await?;
            namespace.published_for(&dns, &nodes[..1]).await
        };
        // Every 20 ms one more, so also before, between and after portmap's rules and the proxy's.
        let (answer, _) = futures::try_join!(flow, create)?;
        let target = Target { protocol: Protocol::Udp, host, port };
        namespace.came_through_proxies(&dns, &[Reply { target, from: None, outcome: Ok(answer) }]).await
    })
    .await
}

#[tokio::test]
async fn a_connection_carries_more_than_fits_into_a_packet() -> Result<(), Failure> {
    test(async |namespace| {
        namespace.backend().await?;
        let [port] = namespace.ports().await?;
        let web = service("web").families(&["IPv6", "IPv4"]).tcp(port).proxy_mode();
        namespace.apply(&web).await?;
        for reply in namespace.exposed(&web).await? {
            let address = (reply.target.host, port).into();
            let mut session = namespace.cluster().session(address).await?;
            session.says(&"x".repeat(60_000)).await?;
        }
        Ok(())
    })
    .await
}

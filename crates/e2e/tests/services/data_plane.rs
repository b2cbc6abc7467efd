//! Packets through the data path: large packets, and packets of flows that started before the rules existed.

use std::net::IpAddr;
use std::time::Duration;

use e2e::{Failure, exposed_service_test, service, test};

/// The size of a datagram in bytes. A datagram of this size needs six fragments.
const LARGE_DATAGRAM_SIZE: usize = 8_000;
/// The time limit for an answer. The client sends its first datagrams before the rules exist.
const ANSWER_TIMEOUT: Duration = Duration::from_mins(2);

#[tokio::test]
async fn fragmented_datagrams_pass_in_both_directions() -> Result<(), Failure> {
    exposed_service_test(
        |port| service("dns").families(&["IPv6", "IPv4"]).udp(port).with_ip_mode_proxy(),
        async |namespace, dns| {
            for mut reply in namespace.wait_exposed(&dns).await? {
                let server = (reply.target.host, reply.target.port).into();
                let answer =
                    namespace.cluster().send_until_answered(server, LARGE_DATAGRAM_SIZE, ANSWER_TIMEOUT);
                reply.result = Ok(answer.await?);
                namespace.ensure_forwarded(&dns, &[reply]).await?;
            }
            Ok(())
        },
    )
    .await
}

#[tokio::test]
async fn udp_flow_that_is_older_than_the_service_reaches_the_backend() -> Result<(), Failure> {
    test(async |namespace| {
        namespace.start_backend().await?;
        let [port] = namespace.allocate_ports().await?;
        let nodes = namespace.cluster().list_nodes().await?;
        let dns = service("dns").udp(port).with_ip_mode_proxy().on_nodes(&[&nodes[0].name]);
        let ipv4_address = nodes[0].addresses.iter().copied().find(IpAddr::is_ipv4);
        let host = ipv4_address.expect("the node has an IPv4 address");
        // The client sends a datagram every 20 ms. Some datagrams arrive before the rules of portmap exist, some before
        // the rules of the proxy or the agent exist, and some after all these rules exist.
        let send_flow = namespace.cluster().send_until_answered((host, port).into(), 1, ANSWER_TIMEOUT);
        let create_service = async {
            namespace.apply(&dns).await?;
            namespace.wait_published(&dns, &nodes[..1]).await
        };
        let (answer, _) = futures::try_join!(send_flow, create_service)?;
        let mut replies = namespace.wait_exposed_on(&dns, &nodes[..1]).await?;
        replies[0].result = Ok(answer);
        namespace.ensure_forwarded(&dns, &replies).await
    })
    .await
}

#[tokio::test]
async fn tcp_connection_carries_more_than_one_packet() -> Result<(), Failure> {
    exposed_service_test(
        |port| service("web").families(&["IPv6", "IPv4"]).tcp(port).with_ip_mode_proxy(),
        async |namespace, web| {
            for reply in namespace.wait_exposed(&web).await? {
                let server = (reply.target.host, reply.target.port).into();
                let mut connection = namespace.cluster().open_connections(server, 1).await?;
                connection.expect_echo(&"x".repeat(60_000)).await?;
            }
            Ok(())
        },
    )
    .await
}

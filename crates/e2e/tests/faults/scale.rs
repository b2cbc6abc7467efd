//! Large numbers of ports and connections. These tests keep the cluster busy, so no other test runs at the same time.

use std::time::Duration;

use akrobateo_core::Protocol;
use e2e::{
    Failure, backend, ensure, eventually_within, fault_test_in_dedicated_mode,
    fault_test_in_dedicated_mode_within, service,
};

/// The time limit for portmap, which adds the rules of one port after another. Each port takes longer than the previous
/// port.
const PORTMAP_TIMEOUT: Duration = Duration::from_mins(4);
const TIME_LIMIT: Duration = Duration::from_mins(7);
/// The number of simultaneous connections to one address.
const CONNECTION_COUNT: usize = 10_000;

#[tokio::test]
async fn one_proxy_exposes_five_hundred_ports() -> Result<(), Failure> {
    fault_test_in_dedicated_mode_within(TIME_LIMIT, async |namespace, _| {
        namespace.start_backend().await?;
        let ports: [u16; 500] = namespace.allocate_ports().await?;
        let nodes = namespace.cluster().list_nodes().await?;
        let service_on_one_node = service("web").with_ip_mode_proxy().on_nodes(&[&nodes[0].name]);
        let web = ports.into_iter().fold(service_on_one_node, |web, port| {
            let protocol = if port % 2 == 0 { Protocol::Tcp } else { Protocol::Udp };
            web.port(protocol, port, backend::PORT)
        });
        namespace.apply(&web).await?;
        eventually_within(PORTMAP_TIMEOUT, "the status has an address", async || {
            let addresses = namespace.published_addresses(&web).await?;
            ensure(!addresses.is_empty(), || "the status has no address".to_owned())
        })
        .await?;
        let replies = namespace.wait_exposed_on(&web, &nodes[..1]).await?;
        namespace.ensure_answers_through_proxies(&web, &replies).await
    })
    .await
}

#[tokio::test]
async fn one_proxy_carries_and_counts_ten_thousand_connections() -> Result<(), Failure> {
    fault_test_in_dedicated_mode(async |namespace, faults| {
        namespace.start_backend().await?;
        let [port] = namespace.allocate_ports().await?;
        let nodes = namespace.cluster().list_nodes().await?;
        let web = service("web").tcp(port).with_ip_mode_proxy().on_nodes(&[&nodes[0].name]);
        faults.wait_kube_proxy_synced(&nodes[0].name, &namespace.apply(&web).await?).await?;
        let reply = namespace.wait_exposed_on(&web, &nodes[..1]).await?.remove(0);
        let server = (reply.target.host, port).into();
        let mut connections = namespace.cluster().open_connections(server, CONNECTION_COUNT).await?;
        connections.expect_echo("first line").await?;
        namespace.ensure_answers_through_proxies(&web, &[reply]).await?;
        let metrics = namespace.get_proxy_metrics(&web).await?;
        let counted_connections = metrics.lines().find_map(|line| {
            line.strip_prefix("akrobateo_lb_connections_total{")?.rsplit(' ').next()?.parse::<usize>().ok()
        });
        ensure(counted_connections.is_some_and(|connections| connections >= CONNECTION_COUNT), || {
            format!(
                "the proxy has counted {counted_connections:?} connections, expected {CONNECTION_COUNT}: {metrics}"
            )
        })?;
        connections.expect_echo("second line").await
    })
    .await
}

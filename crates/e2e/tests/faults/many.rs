//! So many ports, or connections, that the cluster is busy with them: no tests for company.

use std::time::Duration;

use akrobateo_core::Protocol;
use e2e::{Failure, backend, ensure, fault_test, fault_test_within, service, within};

/// portmap makes rules for each port, one by one, and the next takes longer than the last.
const PATIENCE: Duration = Duration::from_mins(4);
const LIMIT: Duration = Duration::from_mins(7);
/// At once, towards one address.
const CONNECTIONS: usize = 10_000;

#[tokio::test]
async fn five_hundred_ports_are_reached_through_one_proxy() -> Result<(), Failure> {
    fault_test_within(LIMIT, async |namespace, _| {
        namespace.backend().await?;
        let ports: [u16; 500] = namespace.ports().await?;
        let nodes = namespace.cluster().nodes().await?;
        let many = ports.into_iter().fold(service("many"), |many, port| {
            let protocol = if port % 2 == 0 { Protocol::Tcp } else { Protocol::Udp };
            many.port(protocol, port, backend::PORT)
        });
        let many = many.proxy_mode().on(&[&nodes[0].name]);
        namespace.apply(&many).await?;
        within(PATIENCE, "portmap has made its rules, and the proxy is ready", async || {
            let published = namespace.published(&many).await?;
            ensure(!published.is_empty(), || "no address is published".to_owned())
        })
        .await?;
        let replies = namespace.exposed_on(&many, &nodes[..1]).await?;
        namespace.came_through_proxies(&many, &replies).await
    })
    .await
}

#[tokio::test]
async fn ten_thousand_connections_live_at_once_through_one_proxy_and_are_counted() -> Result<(), Failure> {
    fault_test(async |namespace, faults| {
        namespace.backend().await?;
        let [port] = namespace.ports().await?;
        let nodes = namespace.cluster().nodes().await?;
        let web = service("web").tcp(port).proxy_mode().on(&[&nodes[0].name]);
        faults.kube_proxy_knows(&nodes[0].name, &namespace.apply(&web).await?).await?;
        let reply = namespace.exposed_on(&web, &nodes[..1]).await?.remove(0);
        let server = (reply.target.host, port).into();
        let mut sessions = namespace.cluster().sessions(server, CONNECTIONS).await?;
        sessions.says("over each of them").await?;
        namespace.came_through_proxies(&web, &[reply]).await?;
        let metrics = namespace.proxy_metrics(&web).await?;
        let counted = metrics.lines().find_map(|line| {
            line.strip_prefix("akrobateo_lb_connections_total{")?.rsplit(' ').next()?.parse::<usize>().ok()
        });
        ensure(counted.is_some_and(|connections| connections >= CONNECTIONS), || metrics.clone())?;
        sessions.says("still over each of them").await
    })
    .await
}

//! A Service with so many ports that a node is busy with them for a minute: no test for company.

use std::time::Duration;

use contract::Protocol;
use e2e::{Failure, backend, ensure, fault_test_within, service, within};

/// portmap makes rules for each port, one by one, and the next takes longer than the last.
const PATIENCE: Duration = Duration::from_mins(4);
const LIMIT: Duration = Duration::from_mins(7);

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

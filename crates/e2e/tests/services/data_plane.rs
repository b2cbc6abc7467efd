//! Packets through hostPort and proxy pod: many ports, many connections, much data, and what the proxies count.

use std::time::Duration;

use contract::Protocol;
use e2e::{Failure, Target, backend, ensure, eventually, service, test, within};

/// At once, towards one address.
const CONNECTIONS: usize = 500;

#[tokio::test]
async fn eighty_ports_are_reached_through_one_proxy() -> Result<(), Failure> {
    test(async |namespace| {
        namespace.backend().await?;
        // portmap makes rules for each, one by one: more of them take longer than a test should.
        let ports: [u16; 80] = namespace.ports().await?;
        let nodes = namespace.cluster().nodes().await?;
        let many = ports.into_iter().fold(service("many"), |many, port| {
            let protocol = if port % 2 == 0 { Protocol::Tcp } else { Protocol::Udp };
            many.port(protocol, port, backend::PORT)
        });
        let many = many.proxy_mode().on(&[&nodes[0].name]);
        namespace.apply(&many).await?;
        within(Duration::from_mins(3), "portmap has made its rules, and the proxy is ready", async || {
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
async fn five_hundred_connections_at_once_are_answered_and_counted() -> Result<(), Failure> {
    test(async |namespace| {
        namespace.backend().await?;
        let [port] = namespace.ports().await?;
        let nodes = namespace.cluster().nodes().await?;
        let web = service("web").tcp(port).proxy_mode().on(&[&nodes[0].name]);
        namespace.apply(&web).await?;
        let reply = namespace.exposed_on(&web, &nodes[..1]).await?.remove(0);
        let target = Target { protocol: Protocol::Tcp, host: reply.target.host, port };
        eventually("all are answered", async || {
            let replies = namespace.cluster().ask(&vec![target; CONNECTIONS]).await?;
            let silent: Vec<_> = replies.iter().filter(|reply| reply.outcome.is_err()).collect();
            ensure(silent.is_empty(), || format!("{} not answered: {:?}", silent.len(), silent.first()))
        })
        .await?;
        namespace.came_through_proxies(&web, &[reply]).await?;
        eventually("the proxy has counted the packets", async || {
            let metrics = namespace.proxy_metrics(&web).await?;
            let of_port = format!("port=\"{port}\"");
            let packets =
                metrics.lines().filter(|line| line.starts_with("akrobateo_lb_") && line.contains(&of_port));
            let counted = packets.filter_map(|line| line.rsplit(' ').next()?.parse::<usize>().ok());
            ensure(counted.clone().any(|number| number >= CONNECTIONS), || metrics.clone())
        })
        .await
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

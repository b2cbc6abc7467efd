//! Tests of network policies in shared mode. The cluster needs a network plugin that enforces them, for example the
//! cluster that `cluster/up --network flannel` starts.

#![allow(missing_docs, reason = "tests")]

use std::net::IpAddr;

use e2e::{
    Failure, Namespace, Reply, ensure, ensure_client_address_kept, eventually, service, test_in_shared_mode,
};

/// Exposes a Service with backends on all nodes, over TCP and UDP and with both families.
async fn expose_web(namespace: &Namespace) -> Result<Vec<Reply>, Failure> {
    namespace.start_pod_on_every_node(&e2e::backend::backend_pod()).await?;
    let [port] = namespace.allocate_ports().await?;
    namespace.expose(&service("web").families(&["IPv4", "IPv6"]).tcp(port).udp(port)).await
}

/// Returns the ranges that contain only the addresses of the client.
fn client_ranges(replies: &[Reply]) -> Vec<String> {
    let range = |address: IpAddr| match address {
        IpAddr::V4(address) => format!("{address}/32"),
        IpAddr::V6(address) => format!("{address}/128"),
    };
    let mut ranges: Vec<_> = replies.iter().filter_map(|reply| reply.client_address).map(range).collect();
    ranges.sort();
    ranges.dedup();
    ranges
}

async fn wait_all_answer(namespace: &Namespace, replies: &[Reply]) -> Result<(), Failure> {
    let targets: Vec<_> = replies.iter().map(|reply| reply.target).collect();
    eventually("all targets answer, and see the client's address", async || {
        for _ in 0..5 {
            ensure_client_address_kept(&namespace.cluster().send_requests(&targets).await?)?;
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn network_policy_with_ip_blocks_allows_only_the_named_clients() -> Result<(), Failure> {
    test_in_shared_mode(async |namespace| {
        let replies = expose_web(namespace).await?;
        let ranges = client_ranges(&replies);
        ensure(ranges.len() == 2, || format!("the client has the addresses {ranges:?}, expected two"))?;
        let targets: Vec<_> = replies.iter().map(|reply| reply.target).collect();
        namespace.allow_only("others", &["198.51.100.7/32".to_owned(), "2001:db8::7/128".to_owned()]).await?;
        namespace.wait_unreachable(&targets).await?;
        namespace.allow_only("client", &ranges).await?;
        wait_all_answer(namespace, &replies).await?;
        namespace.delete_network_policy("client").await?;
        namespace.wait_unreachable(&targets).await
    })
    .await
}

#[tokio::test]
async fn default_deny_policy_denies_clients_outside_the_cluster() -> Result<(), Failure> {
    test_in_shared_mode(async |namespace| {
        let replies = expose_web(namespace).await?;
        let targets: Vec<_> = replies.iter().map(|reply| reply.target).collect();
        namespace.allow_only("default-deny", &[]).await?;
        namespace.wait_unreachable(&targets).await?;
        namespace.allow_only("everybody", &["0.0.0.0/0".to_owned(), "::/0".to_owned()]).await?;
        wait_all_answer(namespace, &replies).await
    })
    .await
}

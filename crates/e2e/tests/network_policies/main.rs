//! Tests of network policies in shared mode. The cluster needs a network plugin that enforces them, for example the
//! cluster that `cluster/up --network flannel` starts.

#![allow(missing_docs, reason = "tests")]

use std::collections::BTreeSet;

use e2e::{
    Failure, Namespace, Reply, ensure, ensure_client_address_kept, eventually, service, test_in_shared_mode,
};

/// Exposes a Service with backends on all nodes, over TCP and UDP. The Service has only IPv4 addresses, because kube-router
/// 2.1 does not apply policies with IPv6 ranges (ip6tables-restore: "Set KUBE-SRC-... doesn't exist").
async fn expose_web(namespace: &Namespace) -> Result<Vec<Reply>, Failure> {
    namespace.start_pod_on_every_node(&e2e::backend::backend_pod()).await?;
    let [port] = namespace.allocate_ports().await?;
    namespace.expose(&service("web").families(&["IPv4"]).tcp(port).udp(port)).await
}

/// Returns the ranges that contain only the addresses of the client.
fn client_ranges(replies: &[Reply]) -> Vec<String> {
    let addresses: BTreeSet<_> = replies.iter().filter_map(|reply| reply.client_address).collect();
    addresses.iter().map(|address| format!("{address}/32")).collect()
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
        ensure(ranges.len() == 1, || format!("the client has the addresses {ranges:?}, expected one"))?;
        let targets: Vec<_> = replies.iter().map(|reply| reply.target).collect();
        namespace.allow_only("others", &["198.51.100.7/32".to_owned()]).await?;
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
        namespace.allow_only("all-clients", &["0.0.0.0/0".to_owned()]).await?;
        wait_all_answer(namespace, &replies).await
    })
    .await
}

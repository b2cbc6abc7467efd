//! Tests of the client's address in shared mode: backends see the client's own address, on every node, for both
//! families and protocols.

use std::slice;

use akrobateo_core::annotations::CLIENT_ADDRESS;
use e2e::{
    Failure, Namespace, Reply, build_targets, ensure, ensure_client_address_kept, eventually, service,
    test_in_shared_mode,
};

/// Waits until backends on more than one node have answered requests to all addresses of a Service. Each backend must
/// see the client's address.
async fn wait_backends_see_client_address(namespace: &Namespace, replies: &[Reply]) -> Result<(), Failure> {
    let targets: Vec<_> = replies.iter().map(|reply| reply.target).collect();
    eventually("the backends see the client's address", async || {
        let mut answering_nodes = std::collections::BTreeSet::new();
        // Each request goes to a random endpoint.
        for _ in 0..10 {
            let replies = namespace.cluster().send_requests(&targets).await?;
            ensure_client_address_kept(&replies)?;
            for reply in &replies {
                answering_nodes.insert(reply.answer()?.node.clone());
            }
        }
        ensure(answering_nodes.len() > 1, || format!("only {answering_nodes:?} answered"))
    })
    .await
}

#[tokio::test]
async fn backends_on_all_nodes_see_the_client_address() -> Result<(), Failure> {
    test_in_shared_mode(async |namespace| {
        namespace.start_pod_on_every_node(&e2e::backend::backend_pod()).await?;
        let [port] = namespace.allocate_ports().await?;
        let web = service("web").families(&["IPv4", "IPv6"]).tcp(port).udp(port);
        let replies = namespace.expose(&web).await?;
        namespace.wait_condition(&web, "Exposed", &[]).await?;
        wait_backends_see_client_address(namespace, &replies).await
    })
    .await
}

#[tokio::test]
async fn service_with_traffic_policy_local_is_exposed_on_nodes_with_endpoints() -> Result<(), Failure> {
    test_in_shared_mode(async |namespace| {
        let nodes = namespace.cluster().list_nodes().await?;
        let [port] = namespace.allocate_ports().await?;
        let web = service("web").tcp(port).udp(port).traffic_policy_local();
        namespace.apply(&web).await?;
        // Other programs may wait for an address before they start the backends.
        namespace.wait_condition(&web, "NoEndpoints", &["ready endpoint"]).await?;
        namespace.wait_published(&web, &nodes).await?;
        namespace.start_backend_on(&nodes[0].name).await?;
        let replies = namespace.wait_exposed_on(&web, slice::from_ref(&nodes[0])).await?;
        ensure_client_address_kept(&replies)?;
        let other_addresses: Vec<_> =
            nodes[1..].iter().flat_map(|node| node.addresses.iter().copied()).collect();
        namespace.wait_unreachable(&build_targets(&web, &other_addresses)).await
    })
    .await
}

#[tokio::test]
async fn annotation_masquerade_hides_the_client_address() -> Result<(), Failure> {
    test_in_shared_mode(async |namespace| {
        let nodes = namespace.cluster().list_nodes().await?;
        namespace.start_backend_on(&nodes[0].name).await?;
        let [port] = namespace.allocate_ports().await?;
        let web = service("web").tcp(port).annotation(CLIENT_ADDRESS, "masquerade");
        let replies = namespace.expose(&web).await?;
        for reply in replies {
            let observed_ip = reply.answer()?.client_address.ip();
            ensure(Some(observed_ip) != reply.client_address, || {
                format!("{}: the backend saw {observed_ip}", reply.target)
            })?;
        }
        Ok(())
    })
    .await
}

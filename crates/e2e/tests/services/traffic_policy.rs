//! With the external traffic policy Local, the source IP is preserved, and only nodes with an endpoint answer.

use std::slice;

use e2e::{Failure, ensure, service, targets, test};

#[tokio::test]
async fn policy_local_exposes_nodes_with_endpoints_and_preserves_the_source_ip() -> Result<(), Failure> {
    test(async |namespace| {
        let nodes = namespace.cluster().list_nodes().await?;
        let [endpoint_node, other_nodes @ ..] = &nodes[..] else {
            return Err(Failure::UnexpectedState("the cluster has no node for proxies".to_owned()));
        };
        let [port] = namespace.allocate_ports().await?;
        let web = service("web").families(&["IPv4", "IPv6"]).tcp(port).udp(port).traffic_policy_local();
        namespace.apply(&web).await?;
        // Others may wait for an address before they start the backends.
        namespace.wait_condition(&web, "NoEndpoints", &["ready endpoint"]).await?;
        namespace.wait_published(&web, &nodes).await?;
        namespace.start_backend_on(&endpoint_node.name).await?;
        let replies = namespace.wait_exposed_on(&web, slice::from_ref(endpoint_node)).await?;
        for reply in &replies {
            let observed_ip = reply.answer()?.client.ip();
            ensure(Some(observed_ip) == reply.client, || {
                format!("{}: the backend saw {observed_ip}, expected {:?}", reply.target, reply.client)
            })?;
        }
        let addresses: Vec<_> = other_nodes.iter().flat_map(|node| node.addresses.iter().copied()).collect();
        namespace.wait_unreachable(&targets(&web, &addresses)).await
    })
    .await
}

#[tokio::test]
async fn service_with_policy_local_and_ip_mode_proxy_gets_a_warning() -> Result<(), Failure> {
    test(async |namespace| {
        let nodes = namespace.cluster().list_nodes().await?;
        namespace.start_backend_on(&nodes[0].name).await?;
        let [port] = namespace.allocate_ports().await?;
        let web = service("web").tcp(port).traffic_policy_local().with_ip_mode_proxy();
        namespace.expose_on(&web, &nodes[..1]).await?;
        namespace.wait_warning(&web, "ClientAddressNotKept", &["ipMode Proxy"]).await
    })
    .await
}

//! With the external traffic policy Local, the source IP is preserved, and only nodes with an endpoint answer. The
//! internal policy limits the proxies in the same way.

use std::slice;
use std::time::Duration;

use e2e::backend::backend_pod;
use e2e::{
    Failure, build_targets, consistently, ensure, ensure_eq, eventually, service, test,
    test_in_dedicated_mode,
};

#[tokio::test]
async fn traffic_policy_local_publishes_only_nodes_with_endpoints_and_keeps_the_client_ip()
-> Result<(), Failure> {
    test(async |namespace| {
        let nodes = namespace.cluster().list_nodes().await?;
        let [endpoint_node, other_nodes @ ..] = &nodes[..] else {
            return Err(Failure::UnexpectedState("the cluster has no node for proxies".to_owned()));
        };
        let [port] = namespace.allocate_ports().await?;
        let web = service("web").families(&["IPv4", "IPv6"]).tcp(port).udp(port).traffic_policy_local();
        namespace.apply(&web).await?;
        // Other programs may wait for an address before they start the backends.
        namespace.wait_condition(&web, "NoEndpoints", &["ready endpoint"]).await?;
        namespace.wait_published(&web, &nodes).await?;
        namespace.start_backend_on(&endpoint_node.name).await?;
        let replies = namespace.wait_exposed_on(&web, slice::from_ref(endpoint_node)).await?;
        // At the start, a Service without endpoints is normal, and so is a change of the published nodes. Neither
        // causes a Warning.
        namespace.ensure_no_warnings(&web).await?;
        for reply in &replies {
            let observed_ip = reply.answer()?.client_address.ip();
            ensure(Some(observed_ip) == reply.client_address, || {
                format!(
                    "{}: the backend saw {observed_ip}, expected {:?}",
                    reply.target, reply.client_address
                )
            })?;
        }
        let addresses: Vec<_> = other_nodes.iter().flat_map(|node| node.addresses.iter().copied()).collect();
        namespace.wait_unreachable(&build_targets(&web, &addresses)).await
    })
    .await
}

#[tokio::test]
async fn service_with_traffic_policy_local_and_ip_mode_proxy_gets_a_warning() -> Result<(), Failure> {
    test_in_dedicated_mode(async |namespace| {
        let nodes = namespace.cluster().list_nodes().await?;
        namespace.start_backend_on(&nodes[0].name).await?;
        let [port] = namespace.allocate_ports().await?;
        let web = service("web").tcp(port).traffic_policy_local().with_ip_mode_proxy();
        namespace.expose_on(&web, &nodes[..1]).await?;
        namespace.wait_warning(&web, "ClientAddressNotKept", &["ipMode Proxy"]).await
    })
    .await
}

#[tokio::test]
async fn new_service_with_traffic_policy_local_and_a_ready_backend_gets_no_warning() -> Result<(), Failure> {
    test(async |namespace| {
        let nodes = namespace.cluster().list_nodes().await?;
        namespace.start_backend_on(&nodes[0].name).await?;
        let [port] = namespace.allocate_ports().await?;
        let web = service("web").tcp(port).traffic_policy_local();
        namespace.expose_on(&web, &nodes[..1]).await?;
        namespace.wait_condition(&web, "Exposed", &[]).await?;
        namespace.ensure_no_warnings(&web).await
    })
    .await
}

#[tokio::test]
async fn node_whose_only_endpoint_terminates_stays_published_and_answers() -> Result<(), Failure> {
    test(async |namespace| {
        let nodes = namespace.cluster().list_nodes().await?;
        let backend = backend_pod().on_node(&nodes[0].name).shutdown_delay(10);
        namespace.start_pod(&backend).await?;
        let [port] = namespace.allocate_ports().await?;
        let web = service("web").tcp(port).traffic_policy_local();
        let replies = namespace.expose_on(&web, &nodes[..1]).await?;
        let targets: Vec<_> = replies.iter().map(|reply| reply.target).collect();
        namespace.delete_pod("backend").await?;
        consistently(Duration::from_secs(7), "the node is published and answers", async || {
            let addresses = namespace.published_addresses(&web).await?;
            ensure_eq("published addresses", &addresses.len(), &1)?;
            let reason = namespace.get_condition(&web).await?.reason;
            ensure_eq("reason of the condition", &reason.as_str(), &"Exposed")?;
            let replies = namespace.cluster().send_requests(&targets).await?;
            replies.iter().try_for_each(|reply| reply.answer().map(drop))
        })
        .await?;
        // When the endpoint is gone, no other node has an endpoint. The published address therefore stays.
        namespace.wait_condition(&web, "NoEndpoints", &["the published addresses stay"]).await?;
        namespace.wait_published(&web, &nodes[..1]).await.map(drop)
    })
    .await
}

#[tokio::test]
async fn internal_traffic_policy_local_with_ip_mode_proxy_publishes_only_nodes_with_an_endpoint()
-> Result<(), Failure> {
    test_in_dedicated_mode(async |namespace| {
        let nodes = namespace.cluster().list_nodes().await?;
        namespace.start_backend_on(&nodes[1].name).await?;
        let [port] = namespace.allocate_ports().await?;
        let web = service("web").tcp(port).udp(port).internal_traffic_policy_local();
        // With ipMode VIP kube-proxy answers, so only the external policy has an effect.
        namespace.expose(&web).await?;
        let web = web.with_ip_mode_proxy();
        namespace.apply(&web).await?;
        // kube-proxy may still answer for a moment.
        eventually("the answers come through the proxies", async || {
            let replies = namespace.wait_exposed_on(&web, &nodes[1..2]).await?;
            namespace.ensure_answers_through_proxies(&web, &replies).await
        })
        .await?;
        namespace.wait_condition(&web, "Exposed", &["internalTrafficPolicy is Local"]).await
    })
    .await
}

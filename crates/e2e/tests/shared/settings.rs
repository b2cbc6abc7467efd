//! Settings of Services in shared mode.

use akrobateo_core::annotations::{NODE_SELECTOR, PROXY_PROTOCOL, WORKLOAD};
use e2e::{Failure, build_targets, ensure, ensure_eq, eventually, service, test_in_shared_mode};

#[tokio::test]
async fn service_without_an_endpoint_rejects_connections() -> Result<(), Failure> {
    test_in_shared_mode(async |namespace| {
        let [port] = namespace.allocate_ports().await?;
        let web = service("web").tcp(port);
        namespace.apply(&web).await?;
        let nodes = namespace.cluster().list_nodes().await?;
        let addresses = namespace.wait_published(&web, &nodes).await?;
        namespace.wait_unreachable(&build_targets(&web, &addresses)).await?;
        namespace.start_backend().await?;
        namespace.wait_exposed(&web).await?;
        // The agents forward the Service, so the Service has no proxies.
        ensure_eq("DaemonSets", &namespace.list_daemonsets(&web).await?.len(), &0)
    })
    .await
}

#[tokio::test]
async fn node_selector_limits_the_nodes() -> Result<(), Failure> {
    test_in_shared_mode(async |namespace| {
        namespace.start_backend().await?;
        let nodes = namespace.cluster().list_nodes().await?;
        let [port] = namespace.allocate_ports().await?;
        let web = service("web").tcp(port).udp(port);
        let service_on_one_node = web.clone().on_nodes(&[&nodes[1].name]);
        namespace.expose_on(&service_on_one_node, &nodes[1..2]).await?;
        let other_addresses: Vec<_> =
            [&nodes[0], &nodes[2]].iter().flat_map(|node| node.addresses.clone()).collect();
        namespace.wait_unreachable(&build_targets(&web, &other_addresses)).await?;
        namespace.expose(&web).await?;
        // The last valid settings stay in effect while the Service is invalid.
        namespace.apply(&web.clone().annotation(NODE_SELECTOR, "a b")).await?;
        namespace.wait_warning(&web, "InvalidAnnotation", &[NODE_SELECTOR]).await?;
        namespace.wait_exposed(&web).await.map(drop)
    })
    .await
}

#[tokio::test]
async fn proxy_protocol_is_rejected_in_shared_mode() -> Result<(), Failure> {
    test_in_shared_mode(async |namespace| {
        let [port] = namespace.allocate_ports().await?;
        let web = service("web").tcp(port).annotation(PROXY_PROTOCOL, "v2").annotation(WORKLOAD, "Shared");
        namespace.apply(&web).await?;
        namespace.wait_warning(&web, "InvalidAnnotation", &[WORKLOAD, "DaemonSet"]).await
    })
    .await
}

#[tokio::test]
async fn source_ranges_limit_the_clients() -> Result<(), Failure> {
    test_in_shared_mode(async |namespace| {
        namespace.start_backend().await?;
        let [port] = namespace.allocate_ports().await?;
        let web = || service("web").tcp(port).udp(port).without_node_ports();
        let replies = namespace.expose(&web()).await?;
        let targets: Vec<_> = replies.iter().map(|reply| reply.target).collect();
        namespace.apply(&web().source_ranges(&["192.0.2.0/24".to_owned()])).await?;
        namespace.wait_unreachable(&targets).await?;
        namespace.apply(&web().source_ranges(&["172.29.0.0/24".to_owned()])).await?;
        eventually("the allowed client is answered", async || {
            let replies = namespace.cluster().send_requests(&targets).await?;
            ensure(replies.iter().all(|reply| reply.result.is_ok()), || format!("{replies:?}"))
        })
        .await
    })
    .await
}

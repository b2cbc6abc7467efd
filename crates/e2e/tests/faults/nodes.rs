//! Nodes that are lost, or excluded from load balancers.

use std::time::Duration;

use e2e::{Failure, TestMode, eventually_within, fault_test, service};

#[tokio::test]
async fn disconnected_node_is_not_published_until_it_reconnects() -> Result<(), Failure> {
    fault_test(async |namespace, faults| {
        let nodes = namespace.cluster().list_nodes().await?;
        let (disconnected_node, other_nodes) = faults.operator.select_node_without_operator(nodes).await?;
        namespace.start_backend_on(&other_nodes[0].name).await?;
        let [web_port, dns_port] = namespace.allocate_ports().await?;
        let web = service("web").tcp(web_port).udp(web_port);
        let dns = service("dns").tcp(dns_port).udp(dns_port).with_ip_mode_proxy();
        namespace.apply(&web).await?;
        namespace.apply(&dns).await?;
        namespace.wait_exposed(&web).await?;
        namespace.wait_exposed(&dns).await?;
        faults.disconnect_node(&disconnected_node.name).await?;
        if namespace.mode() == TestMode::Shared {
            // The operator does not wait until Kubernetes calls the node NotReady, which takes 50 s.
            eventually_within(Duration::from_secs(20), "the lost node is not published", async || {
                namespace.ensure_published(&web, &other_nodes).await
            })
            .await?;
        }
        namespace.wait_exposed_on(&web, &other_nodes).await?;
        let replies = namespace.wait_exposed_on(&dns, &other_nodes).await?;
        namespace.ensure_forwarded(&dns, &replies).await?;
        faults.reconnect_node(&disconnected_node.name).await?;
        if namespace.mode() == TestMode::Shared {
            let nodes = namespace.cluster().list_nodes().await?;
            eventually_within(Duration::from_secs(5), "the node is published again", async || {
                namespace.ensure_published(&web, &nodes).await
            })
            .await?;
        }
        namespace.wait_exposed(&web).await?;
        namespace.wait_exposed(&dns).await.map(drop)
    })
    .await
}

#[tokio::test]
async fn node_with_the_exclude_label_is_not_published() -> Result<(), Failure> {
    fault_test(async |namespace, faults| {
        namespace.start_backend().await?;
        let nodes = namespace.cluster().list_nodes().await?;
        let (excluded_node, other_nodes) = faults.operator.select_node_without_operator(nodes).await?;
        let [port] = namespace.allocate_ports().await?;
        let web = service("web").tcp(port);
        namespace.expose(&web).await?;
        faults.set_exclude_label(&excluded_node.name).await?;
        namespace.wait_exposed_on(&web, &other_nodes).await?;
        faults.remove_exclude_label(&excluded_node.name).await?;
        namespace.wait_exposed(&web).await.map(drop)
    })
    .await
}

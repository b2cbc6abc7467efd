//! Nodes that are lost, or excluded from load balancers.

use e2e::{Failure, Faults, Namespace, NodeAddresses, fault_test, service};

/// Returns a node that does not run the operator, and the other nodes.
async fn select_node_without_operator(
    namespace: &Namespace,
    faults: &Faults,
) -> Result<(NodeAddresses, Vec<NodeAddresses>), Failure> {
    let operator_node = faults.operator.wait_ready().await?.spec.and_then(|pod| pod.node_name);
    let mut nodes = namespace.cluster().list_nodes().await?;
    let index = nodes.iter().position(|node| Some(&node.name) != operator_node.as_ref());
    let index = index.ok_or_else(|| {
        Failure::UnexpectedState("the cluster has one node, expected at least two".to_owned())
    })?;
    Ok((nodes.remove(index), nodes))
}

#[tokio::test]
async fn disconnected_node_is_not_published_until_it_is_back() -> Result<(), Failure> {
    fault_test(async |namespace, faults| {
        let (disconnected, other_nodes) = select_node_without_operator(namespace, faults).await?;
        namespace.start_backend_on(&other_nodes[0].name).await?;
        let [web_port, dns_port] = namespace.allocate_ports().await?;
        let web = service("web").tcp(web_port).udp(web_port);
        let dns = service("dns").tcp(dns_port).udp(dns_port).with_ip_mode_proxy();
        namespace.apply(&web).await?;
        namespace.apply(&dns).await?;
        namespace.wait_exposed(&web).await?;
        namespace.wait_exposed(&dns).await?;
        faults.disconnect_node(&disconnected.name).await?;
        namespace.wait_exposed_on(&web, &other_nodes).await?;
        let replies = namespace.wait_exposed_on(&dns, &other_nodes).await?;
        namespace.ensure_answers_through_proxies(&dns, &replies).await?;
        faults.reconnect_node(&disconnected.name).await?;
        namespace.wait_exposed(&web).await?;
        namespace.wait_exposed(&dns).await.map(drop)
    })
    .await
}

#[tokio::test]
async fn node_with_the_exclude_label_is_not_published() -> Result<(), Failure> {
    fault_test(async |namespace, faults| {
        namespace.start_backend().await?;
        let (excluded, other_nodes) = select_node_without_operator(namespace, faults).await?;
        let [port] = namespace.allocate_ports().await?;
        let web = service("web").tcp(port);
        namespace.expose(&web).await?;
        faults.set_exclude_label(&excluded.name).await?;
        namespace.wait_exposed_on(&web, &other_nodes).await?;
        faults.remove_exclude_label(&excluded.name).await?;
        namespace.wait_exposed(&web).await.map(drop)
    })
    .await
}

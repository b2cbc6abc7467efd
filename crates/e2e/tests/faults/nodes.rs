//! Nodes that are lost, or must not be published.

use e2e::{Failure, Faults, Namespace, NodeAddresses, fault_test, service};

/// A node to lose, and the others; the operator runs on one of those.
async fn one_and_others(
    namespace: &Namespace,
    faults: &Faults,
) -> Result<(NodeAddresses, Vec<NodeAddresses>), Failure> {
    let operator = faults.operator.ready().await?.spec.and_then(|pod| pod.node_name);
    let mut nodes = namespace.cluster().nodes().await?;
    let index = nodes.iter().position(|node| Some(&node.name) != operator.as_ref());
    let index = index.ok_or_else(|| Failure::Unmet("every node runs the operator".to_owned()))?;
    Ok((nodes.remove(index), nodes))
}

#[tokio::test]
async fn a_node_that_is_cut_off_leaves_the_status_and_returns_when_it_is_back() -> Result<(), Failure> {
    fault_test(async |namespace, faults| {
        let (lost, others) = one_and_others(namespace, faults).await?;
        namespace.backend_on(&others[0].name).await?;
        let [direct, proxied] = namespace.ports().await?;
        let web = service("web").tcp(direct).udp(direct);
        let dns = service("dns").tcp(proxied).udp(proxied).proxy_mode();
        namespace.apply(&web).await?;
        namespace.apply(&dns).await?;
        namespace.exposed(&web).await?;
        namespace.exposed(&dns).await?;
        faults.cut(&lost.name).await?;
        namespace.exposed_on(&web, &others).await?;
        let replies = namespace.exposed_on(&dns, &others).await?;
        namespace.came_through_proxies(&dns, &replies).await?;
        faults.restore(&lost.name).await?;
        namespace.exposed(&web).await?;
        namespace.exposed(&dns).await.map(drop)
    })
    .await
}

#[tokio::test]
async fn a_node_that_is_labelled_as_excluded_leaves_the_status_and_returns_without_the_label()
-> Result<(), Failure> {
    fault_test(async |namespace, faults| {
        namespace.backend().await?;
        let (excluded, others) = one_and_others(namespace, faults).await?;
        let [port] = namespace.ports().await?;
        let web = service("web").tcp(port);
        namespace.apply(&web).await?;
        namespace.exposed(&web).await?;
        faults.exclude(&excluded.name).await?;
        namespace.exposed_on(&web, &others).await?;
        faults.include(&excluded.name).await?;
        namespace.exposed(&web).await.map(drop)
    })
    .await
}

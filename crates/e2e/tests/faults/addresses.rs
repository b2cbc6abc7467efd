//! The published addresses follow the nodes: their annotations, taints and labels.

use akrobateo_core::annotations::NODE_SELECTOR;
use e2e::{Failure, NodeAddresses, POOL_LABEL, fault_test, service};

#[tokio::test]
async fn a_node_may_say_which_addresses_are_published_for_it_and_take_that_back() -> Result<(), Failure> {
    fault_test(async |namespace, faults| {
        let nodes = namespace.cluster().nodes().await?;
        let [port] = namespace.ports().await?;
        let web = service("web").families(&["IPv4", "IPv6"]).tcp(port);
        namespace.apply(&web).await?;
        namespace.published_for(&web, &nodes).await?;
        faults.publish_instead(&nodes[0].name, Some("203.0.113.7, 2001:db8::7, nonsense")).await?;
        let mut outside = nodes.clone();
        outside[0].addresses = vec!["203.0.113.7".parse().unwrap(), "2001:db8::7".parse().unwrap()];
        namespace.published_for(&web, &outside).await?;
        faults.publish_instead(&nodes[0].name, None).await?;
        namespace.published_for(&web, &nodes).await.map(drop)
    })
    .await
}

#[tokio::test]
async fn a_node_that_is_about_to_be_deleted_leaves_the_status_and_returns_if_it_stays_after_all()
-> Result<(), Failure> {
    fault_test(async |namespace, faults| {
        let nodes = namespace.cluster().nodes().await?;
        let [port] = namespace.ports().await?;
        let web = service("web").tcp(port);
        namespace.apply(&web).await?;
        namespace.published_for(&web, &nodes).await?;
        faults.to_be_deleted(&nodes[1].name, true).await?;
        let others: Vec<NodeAddresses> = [&nodes[..1], &nodes[2..]].concat();
        namespace.published_for(&web, &others).await?;
        faults.to_be_deleted(&nodes[1].name, false).await?;
        namespace.published_for(&web, &nodes).await.map(drop)
    })
    .await
}

#[tokio::test]
async fn proxies_follow_the_nodes_labels() -> Result<(), Failure> {
    fault_test(async |namespace, faults| {
        namespace.backend().await?;
        let nodes = namespace.cluster().nodes().await?;
        let [port] = namespace.ports().await?;
        let selector = format!("{POOL_LABEL} in (edge, dmz),{POOL_LABEL}!=off");
        let web = service("web").tcp(port).proxy_mode();
        let web = web.annotation(NODE_SELECTOR, &selector);
        namespace.apply(&web).await?;
        namespace.warned(&web, "NoNodes", &["no node matches the node selector"]).await?;
        faults.pool(&nodes[0].name, Some("edge")).await?;
        namespace.exposed_on(&web, &nodes[..1]).await?;
        faults.pool(&nodes[1].name, Some("dmz")).await?;
        namespace.exposed_on(&web, &nodes[..2]).await?;
        faults.pool(&nodes[0].name, None).await?;
        namespace.exposed_on(&web, &nodes[1..2]).await.map(drop)
    })
    .await
}

//! The published addresses follow the annotations, taints and labels of the nodes.

use akrobateo_core::annotations::NODE_SELECTOR;
use e2e::{Failure, NodeAddresses, POOL_LABEL, fault_test, service};

#[tokio::test]
async fn node_annotation_overrides_the_published_addresses() -> Result<(), Failure> {
    fault_test(async |namespace, faults| {
        let nodes = namespace.cluster().list_nodes().await?;
        let [port] = namespace.allocate_ports().await?;
        let web = service("web").families(&["IPv4", "IPv6"]).tcp(port);
        namespace.apply(&web).await?;
        namespace.wait_published(&web, &nodes).await?;
        faults.override_addresses(&nodes[0].name, Some("203.0.113.7, 2001:db8::7, nonsense")).await?;
        let mut nodes_with_overridden_addresses = nodes.clone();
        nodes_with_overridden_addresses[0].addresses =
            vec!["203.0.113.7".parse().unwrap(), "2001:db8::7".parse().unwrap()];
        namespace.wait_published(&web, &nodes_with_overridden_addresses).await?;
        faults.override_addresses(&nodes[0].name, None).await?;
        namespace.wait_published(&web, &nodes).await.map(drop)
    })
    .await
}

#[tokio::test]
async fn node_with_the_cluster_autoscalers_deletion_taint_is_not_published() -> Result<(), Failure> {
    fault_test(async |namespace, faults| {
        let nodes = namespace.cluster().list_nodes().await?;
        let [port] = namespace.allocate_ports().await?;
        let web = service("web").tcp(port);
        namespace.apply(&web).await?;
        namespace.wait_published(&web, &nodes).await?;
        faults.set_deletion_taint(&nodes[1].name).await?;
        let other_nodes: Vec<NodeAddresses> = [&nodes[..1], &nodes[2..]].concat();
        namespace.wait_published(&web, &other_nodes).await?;
        faults.remove_deletion_taint(&nodes[1].name).await?;
        namespace.wait_published(&web, &nodes).await.map(drop)
    })
    .await
}

#[tokio::test]
async fn proxies_follow_the_labels_of_the_nodes() -> Result<(), Failure> {
    fault_test(async |namespace, faults| {
        namespace.start_backend().await?;
        let nodes = namespace.cluster().list_nodes().await?;
        let [port] = namespace.allocate_ports().await?;
        let selector = format!("{POOL_LABEL} in (edge, dmz),{POOL_LABEL}!=off");
        let web = service("web").tcp(port).with_ip_mode_proxy().annotation(NODE_SELECTOR, &selector);
        namespace.apply(&web).await?;
        namespace.wait_warning(&web, "NoNodes", &["no node"]).await?;
        faults.set_pool_label(&nodes[0].name, Some("edge")).await?;
        namespace.wait_exposed_on(&web, &nodes[..1]).await?;
        faults.set_pool_label(&nodes[1].name, Some("dmz")).await?;
        namespace.wait_exposed_on(&web, &nodes[..2]).await?;
        faults.set_pool_label(&nodes[0].name, None).await?;
        namespace.wait_exposed_on(&web, &nodes[1..2]).await.map(drop)
    })
    .await
}

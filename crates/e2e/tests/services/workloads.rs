//! Proxies as a Deployment: on some nodes, and only these are published.

use akrobateo_core::annotations::{REPLICAS, WORKLOAD};
use e2e::{Failure, Namespace, NodeAddresses, ServiceBuilder, eventually, same, service, test};

/// Waits for this many proxies, and says where they are.
async fn nodes_of(
    namespace: &Namespace,
    service: &ServiceBuilder,
    proxies: usize,
) -> Result<Vec<NodeAddresses>, Failure> {
    eventually("the proxies are where they shall be", async || {
        let pods = namespace.proxy_addresses(service).await?;
        same("nodes with proxies", &pods.len(), &proxies)?;
        let nodes = namespace.cluster().nodes().await?;
        Ok(nodes.into_iter().filter(|node| pods.contains_key(&node.name)).collect())
    })
    .await
}

#[tokio::test]
async fn a_service_may_ask_for_a_few_proxies_instead_of_one_on_each_node() -> Result<(), Failure> {
    test(async |namespace| {
        namespace.backend().await?;
        let [port] = namespace.ports().await?;
        let everywhere = service("web").tcp(port).proxy_mode();
        let few = everywhere.clone().annotation(WORKLOAD, "Deployment").annotation(REPLICAS, "2");
        namespace.apply(&few).await?;
        let replies = namespace.exposed_on(&few, &nodes_of(namespace, &few, 2).await?).await?;
        namespace.came_through_proxies(&few, &replies).await?;
        same("DaemonSets", &namespace.daemonsets(&few).await?.len(), &0)?;

        namespace.apply(&everywhere).await?;
        namespace.exposed(&everywhere).await?;
        namespace.delete(&everywhere).await?;
        namespace.withdrawn(&everywhere).await
    })
    .await
}

//! Services that become invalid: their published addresses stay, and no address is added.

use std::time::Duration;

use akrobateo_core::annotations::REPLICAS;
use e2e::backend::backend_pod;
use e2e::{Failure, consistently, ensure_eq, eventually, service, test};

#[tokio::test]
async fn invalid_annotation_adds_no_address_to_a_service_with_traffic_policy_local() -> Result<(), Failure> {
    test(async |namespace| {
        let nodes = namespace.cluster().list_nodes().await?;
        namespace.start_backend_on(&nodes[1].name).await?;
        let [port] = namespace.allocate_ports().await?;
        let web = service("web").families(&["IPv4", "IPv6"]).tcp(port).traffic_policy_local();
        namespace.expose_on(&web, &nodes[1..2]).await?;
        namespace.wait_rollouts_ended(&web).await?;
        let workload_before = namespace.list_workload_versions(&web).await?;
        namespace.apply(&web.clone().annotation(REPLICAS, "lots")).await?;
        let parts = ["\"lots\"", "a number from 1", "The previous settings stay in force"];
        namespace.wait_condition(&web, "InvalidAnnotation", &parts).await?;
        consistently(Duration::from_secs(3), "the address is published", async || {
            namespace.ensure_published(&web, &nodes[1..2]).await.map(drop)
        })
        .await?;
        namespace.wait_operator_synced().await?;
        namespace.wait_exposed_on(&web, &nodes[1..2]).await?;
        ensure_eq("workload", &namespace.list_workload_versions(&web).await?, &workload_before)?;
        // The endpoint moves to another node. The previous node cannot answer any more, and the new node is not added.
        namespace.delete_pod("backend").await?;
        namespace.start_pod(&backend_pod().named("moved").on_node(&nodes[2].name)).await?;
        eventually("no address is published", async || {
            ensure_eq("published addresses", &namespace.published_addresses(&web).await?, &vec![])
        })
        .await?;
        namespace.apply(&web).await?;
        namespace.wait_exposed_on(&web, &nodes[2..3]).await?;
        namespace.wait_condition(&web, "Exposed", &[]).await
    })
    .await
}

//! Measures the time from the loss of a node to the removal of its address. Does I/O.

use std::time::Duration;

use e2e::{Failure, Faults, Namespace, service};
use tokio::time::Instant;

const ROUND_COUNT: usize = 3;

/// Returns the durations of all rounds.
pub(crate) async fn measure_node_losses(
    namespace: &Namespace,
    faults: &Faults,
) -> Result<Vec<Duration>, Failure> {
    let nodes = namespace.cluster().list_nodes().await?;
    let (lost_node, other_nodes) = faults.operator.select_node_without_operator(nodes).await?;
    namespace.start_backend_on(&other_nodes[0].name).await?;
    let [port] = namespace.allocate_ports().await?;
    let web = service("lost-node").tcp(port);
    namespace.expose(&web).await?;
    let mut durations = Vec::new();
    for _ in 0..ROUND_COUNT {
        let lost_at = Instant::now();
        faults.disconnect_node(&lost_node.name).await?;
        namespace.wait_published(&web, &other_nodes).await?;
        durations.push(lost_at.elapsed());
        faults.reconnect_node(&lost_node.name).await?;
        namespace.wait_exposed(&web).await?;
    }
    Ok(durations)
}

//! Leader election between two replicas of the operator.

use std::time::Duration;

use e2e::{Failure, fault_test, service};

/// The deadline for a takeover after a crash. The other replica waits for the lease duration (15 s), and checks the
/// Lease every 2 s. The rest of the deadline is a reserve for a busy machine.
const CRASH_TAKEOVER_DEADLINE: Duration = Duration::from_secs(20);
/// The deadline for a takeover after a graceful shutdown, which releases the Lease. The deadline is much shorter than
/// the lease duration.
const GRACEFUL_TAKEOVER_DEADLINE: Duration = Duration::from_secs(5);

#[tokio::test]
async fn replica_takes_over_from_a_killed_leader_and_loses_no_change() -> Result<(), Failure> {
    fault_test(async |namespace, faults| {
        namespace.start_backend().await?;
        let [changed_port, added_port, deleted_port, created_port] = namespace.allocate_ports().await?;
        let changed_service = service("changed").tcp(changed_port).with_ip_mode_proxy();
        let deleted_service = service("deleted").tcp(deleted_port);
        let created_service = service("created").tcp(created_port).with_ip_mode_proxy();
        faults.operator.start_replicas(2).await?;
        namespace.apply(&changed_service).await?;
        namespace.apply(&deleted_service).await?;
        namespace.wait_exposed(&changed_service).await?;
        namespace.wait_exposed(&deleted_service).await?;

        let leader = faults.operator.wait_leader().await?;
        let changed_service = changed_service.udp(added_port);
        namespace.apply(&changed_service).await?;
        namespace.delete_service(&deleted_service).await?;
        faults.crash_operator(&leader).await?;
        namespace.apply(&created_service).await?;
        faults.operator.wait_takeover(&leader, CRASH_TAKEOVER_DEADLINE).await?;
        namespace.wait_exposed(&changed_service).await?;
        namespace.wait_exposed(&created_service).await?;
        namespace.wait_cleaned_up(&deleted_service).await
    })
    .await
}

#[tokio::test]
async fn replica_takes_over_from_a_stopping_leader_within_five_seconds() -> Result<(), Failure> {
    fault_test(async |namespace, faults| {
        let [port] = namespace.allocate_ports().await?;
        faults.operator.start_replicas(2).await?;
        let leader = faults.operator.wait_leader().await?;
        faults.operator.delete_pod(&leader).await?;
        faults.operator.wait_takeover(&leader, GRACEFUL_TAKEOVER_DEADLINE).await?;
        let web = service("web").tcp(port);
        namespace.apply(&web).await?;
        namespace.wait_published(&web, &namespace.cluster().list_nodes().await?).await.map(drop)
    })
    .await
}

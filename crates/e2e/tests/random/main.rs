//! Random changes while the operator is killed repeatedly. The final state must depend on the Services only.

mod model;

use std::time::Duration;

use e2e::{Failure, Faults, Namespace, differences, ensure, eventually, fault_test_within};
use fastrand::Rng;
use model::{Change, Model};
use tokio::time::sleep;

const CHANGE_COUNT: usize = 200;
/// The mean pause between two changes. The test kills about six leaders during all changes.
const MEAN_PAUSE_BETWEEN_CHANGES: Duration = Duration::from_millis(500);
/// The maximum time from the election of a leader until the test kills the leader.
const MAX_LEADER_LIFETIME: Duration = Duration::from_secs(4);
const TIME_LIMIT: Duration = Duration::from_mins(8);
/// The environment variable with the random seed. To repeat a failed run, set the variable to the seed of that run.
const SEED_VARIABLE: &str = "AKROBATEO_E2E_SEED";

fn read_seed() -> u64 {
    let seed = std::env::var(SEED_VARIABLE).ok().and_then(|seed| seed.parse().ok());
    seed.unwrap_or_else(|| Rng::new().u64(..))
}

#[tokio::test]
async fn repeatedly_killed_operator_and_new_operator_reach_the_same_state() -> Result<(), Failure> {
    let seed = read_seed();
    println!("{SEED_VARIABLE}={seed}");
    fault_test_within(TIME_LIMIT, async |namespace, faults| {
        namespace.start_backend().await?;
        let nodes = namespace.cluster().list_nodes().await?;
        let nodes: Vec<_> = nodes.into_iter().map(|node| node.name).collect();
        let mut model = Model::new(seed, namespace.allocate_ports().await?);
        let mut kill_rng = Rng::with_seed(model.rng().u64(..));
        tokio::select! {
            result = make_changes(namespace, faults, &mut model, &nodes) => result?,
            result = kill_leaders(faults, &mut kill_rng) => result?,
        }
        for change in model.correct_invalid_annotations() {
            apply_change(namespace, faults, &nodes, change).await?;
        }
        faults.operator.wait_ready().await?;
        // The state is also stable if there is no leader, so the test waits for a leader first.
        faults.operator.wait_leader().await?;
        let state_after_kills = namespace.wait_stable().await?;
        faults.operator.stop().await?;
        namespace.reset_operator_state().await?;
        faults.operator.start().await?;
        faults.operator.wait_leader().await?;
        let differences = differences(&state_after_kills, &namespace.wait_stable().await?);
        ensure(differences.is_empty(), || {
            let differences = differences.join("\n");
            format!("{SEED_VARIABLE}={seed}: state after the kills, state of a new operator:\n{differences}")
        })
    })
    .await
}

async fn make_changes(
    namespace: &Namespace,
    faults: &Faults,
    model: &mut Model,
    nodes: &[String],
) -> Result<(), Failure> {
    for _ in 0..CHANGE_COUNT {
        let change = model.next_change(nodes.len());
        apply_change(namespace, faults, nodes, change).await?;
        sleep(MEAN_PAUSE_BETWEEN_CHANGES.mul_f32(2.0 * model.rng().f32())).await;
    }
    Ok(())
}

/// Makes a change. Retries, because the API server of a busy machine may not answer in time.
async fn apply_change(
    namespace: &Namespace,
    faults: &Faults,
    nodes: &[String],
    change: Change,
) -> Result<(), Failure> {
    eventually("the API server has accepted the change", async || match &change {
        Change::Apply(service) => namespace.apply(service).await.map(drop),
        Change::Delete(service) => namespace.delete_service_if_exists(service).await,
        Change::ReplaceService(service) => {
            namespace.delete_service_if_exists(service).await?;
            namespace.apply(service).await.map(drop)
        }
        Change::SetPoolLabel(node, pool) => faults.set_pool_label(&nodes[*node], *pool).await,
    })
    .await
}

/// Kills each leader after a random time.
async fn kill_leaders(faults: &Faults, random: &mut Rng) -> Result<(), Failure> {
    let mut previous = String::new();
    loop {
        let leader = faults.operator.wait_leader_other_than(&previous).await?;
        sleep(MAX_LEADER_LIFETIME.mul_f32(random.f32())).await;
        // A crashed leader keeps its Lease. A leader that shuts down gracefully releases its Lease.
        if random.bool() {
            faults.crash_operator(&leader).await?;
        } else {
            faults.operator.delete_pod(&leader).await?;
        }
        previous = leader;
    }
}

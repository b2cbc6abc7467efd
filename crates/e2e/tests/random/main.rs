//! Random changes while the operator is killed repeatedly. The final state must depend on the Services only.

mod model;

use std::time::Duration;

use e2e::{Failure, Faults, Namespace, differences, ensure, eventually, fault_test_within};
use fastrand::Rng;
use model::{Change, Model};
use tokio::time::sleep;

const CHANGES: usize = 200;
/// The mean pause between two changes. All changes together take about as long as six leaders live.
const MEAN_PAUSE: Duration = Duration::from_millis(500);
/// The longest time from the election of a leader until the test kills it.
const MAX_LEADER_LIFETIME: Duration = Duration::from_secs(4);
const TIME_LIMIT: Duration = Duration::from_mins(8);
/// The variable with the seed of a failed run, to repeat that run.
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
        let mut kill_random = Rng::with_seed(model.random().u64(..));
        tokio::select! {
            result = make_changes(namespace, faults, &mut model, &nodes) => result?,
            result = kill_leaders(faults, &mut kill_random) => result?,
        }
        for change in model.correct_invalid_annotations() {
            apply_change(namespace, faults, &nodes, change).await?;
        }
        faults.operator.wait_ready().await?;
        // Without a leader nothing changes either, so a leader must exist before the cluster counts as quiescent.
        faults.operator.wait_leader().await?;
        let killed_state = namespace.wait_quiescent().await?;
        faults.operator.stop().await?;
        namespace.reset_operator_state().await?;
        faults.operator.start().await?;
        faults.operator.wait_leader().await?;
        let differences = differences(&killed_state, &namespace.wait_quiescent().await?);
        ensure(differences.is_empty(), || {
            let differences = differences.join("\n");
            format!("{SEED_VARIABLE}={seed}: state of the killed operators, of a new one:\n{differences}")
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
    for _ in 0..CHANGES {
        let change = model.next_change(nodes.len());
        apply_change(namespace, faults, nodes, change).await?;
        sleep(MEAN_PAUSE.mul_f32(2.0 * model.random().f32())).await;
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
        Change::Replace(service) => {
            namespace.delete_service_if_exists(service).await?;
            namespace.apply(service).await.map(drop)
        }
        Change::SetPool(node, pool) => faults.set_pool(&nodes[*node], *pool).await,
    })
    .await
}

/// Kills each leader after a random time.
async fn kill_leaders(faults: &Faults, random: &mut Rng) -> Result<(), Failure> {
    let mut previous = String::new();
    loop {
        let leader = faults.operator.wait_leader_other_than(&previous).await?;
        sleep(MAX_LEADER_LIFETIME.mul_f32(random.f32())).await;
        // A crashed leader keeps its Lease. A leader that shuts down releases it in the middle of its work.
        if random.bool() {
            faults.crash_operator(&leader).await?;
        } else {
            faults.operator.delete_pod(&leader).await?;
        }
        previous = leader;
    }
}

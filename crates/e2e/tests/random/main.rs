//! Whatever happens, in whatever order, and however often the operator is killed: the end depends on the Services alone.

mod model;

use std::time::Duration;

use e2e::{Failure, Faults, Namespace, differences, ensure, eventually, fault_test_within};
use fastrand::Rng;
use model::{Change, Model};
use tokio::time::sleep;

const CHANGES: usize = 200;
/// The mean pause between two changes; so that all of them take about as long as six lives of an operator.
const PAUSE: Duration = Duration::from_millis(500);
/// An operator is killed within so long after it has begun to work.
const LIFE: Duration = Duration::from_secs(4);
const LIMIT: Duration = Duration::from_mins(8);

/// To repeat a run: `E2E_SEED=…` of the one that failed.
fn seed() -> u64 {
    let given = std::env::var("E2E_SEED").ok().and_then(|seed| seed.parse().ok());
    given.unwrap_or_else(|| Rng::new().u64(..))
}

#[tokio::test]
async fn two_hundred_random_changes_under_an_operator_that_is_killed_end_as_a_fresh_operator_would_have_it()
-> Result<(), Failure> {
    let seed = seed();
    println!("E2E_SEED={seed}");
    fault_test_within(LIMIT, async |namespace, faults| {
        namespace.backend().await?;
        let nodes: Vec<_> = namespace.cluster().nodes().await?.into_iter().map(|node| node.name).collect();
        let mut model = Model::new(seed, namespace.ports().await?);
        let mut deaths = Rng::with_seed(model.random().u64(..));
        tokio::select! {
            changed = change(namespace, faults, &mut model, &nodes) => changed?,
            killed = kill(faults, &mut deaths) => killed?,
        }
        for change in model.mend() {
            make(namespace, faults, &nodes, change).await?;
        }
        faults.operator.ready().await?;
        // Only then is it quiet since all is done, and not since the next one waits for the end of a killed one's Lease.
        faults.operator.leader().await?;
        let after_the_storm = namespace.quiet().await?;
        faults.operator.stop().await?;
        namespace.forget_everything().await?;
        faults.operator.start().await?;
        faults.operator.leader().await?;
        let differences = differences(&after_the_storm, &namespace.quiet().await?);
        ensure(differences.is_empty(), || {
            format!("E2E_SEED={seed}: it was, and a fresh operator made:\n{}", differences.join("\n"))
        })
    })
    .await
}

async fn change(
    namespace: &Namespace,
    faults: &Faults,
    model: &mut Model,
    nodes: &[String],
) -> Result<(), Failure> {
    for _ in 0..CHANGES {
        let change = model.change(nodes.len());
        make(namespace, faults, nodes, change).await?;
        sleep(PAUSE.mul_f32(2.0 * model.random().f32())).await;
    }
    Ok(())
}

/// Makes a change; again when the API server, on a busy machine, does not answer in time.
async fn make(
    namespace: &Namespace,
    faults: &Faults,
    nodes: &[String],
    change: Change,
) -> Result<(), Failure> {
    eventually("the change is made", async || match &change {
        Change::Apply(service) => namespace.apply(service).await.map(drop),
        Change::Delete(service) => namespace.delete_if_there(service).await,
        Change::Replace(service) => {
            namespace.delete_if_there(service).await?;
            namespace.apply(service).await.map(drop)
        }
        Change::Pool(node, pool) => faults.pool(&nodes[*node], *pool).await,
    })
    .await
}

/// Kills each operator while it works.
async fn kill(faults: &Faults, random: &mut Rng) -> Result<(), Failure> {
    let mut before = String::new();
    loop {
        let leader = faults.operator.next_leader(&before).await?;
        sleep(LIFE.mul_f32(random.f32())).await;
        // One that crashes keeps its Lease, one that is told to end gives it up in the middle of its work.
        if random.bool() {
            faults.crash_operator(&leader).await?;
        } else {
            faults.operator.end_pod(&leader).await?;
        }
        before = leader;
    }
}

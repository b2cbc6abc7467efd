//! A soak: random changes of 200 Services, and faults. Afterwards the cluster must be in the expected state, no process
//! may have leaked memory, and no request to an untouched Service may have failed.

#![allow(missing_docs, reason = "tests")]

mod agent_tables;
mod backends;
mod changes;
mod connectivity;
mod divergence;
mod injector;
mod memory;
mod model;
mod schedule;
mod settings;
mod untouched;

use std::time::Duration;

use agent_tables::{ensure_restart_changes_no_rule, wait_tables_stable};
use changes::{CHANGED_SERVICE_COUNT, Change, Model};
use connectivity::RequestLog;
use divergence::DivergenceCheck;
use e2e::{
    Failure, Faults, Namespace, NodeAddresses, differences, ensure, eventually,
    fault_test_in_shared_mode_within,
};
use futures::future::{try_join, try_join_all};
use injector::FaultInjector;
use memory::ProcessMemory;
use schedule::{FaultGenerator, ScheduledFault};
use settings::{SEED_VARIABLE, Settings};
use tokio::time::{Instant, sleep};
use untouched::{UNTOUCHED_SERVICE_COUNT, UntouchedServices};

/// The average pause between two changes.
const AVERAGE_PAUSE_BETWEEN_CHANGES: Duration = Duration::from_millis(600);
/// The number of ports for the changed Services. Most free ports belonged to a Service before.
const PORT_COUNT: usize = 340;
/// The number of changes at the same time, when the test creates all Services.
const PARALLEL_CHANGES: usize = 20;

/// The cluster under test.
struct Soak<'a> {
    namespace: &'a Namespace,
    faults: &'a Faults,
    settings: &'a Settings,
    nodes: [NodeAddresses; 3],
    node_names: Vec<String>,
}

#[tokio::test]
async fn changes_and_faults_cause_no_divergence_no_leak_and_no_lost_connection() -> Result<(), Failure> {
    let settings = Settings::read()?;
    println!("{SEED_VARIABLE}={}, {} s of changes and faults", settings.seed, settings.duration.as_secs());
    let result = fault_test_in_shared_mode_within(settings.time_limit(), async |namespace, faults| {
        Box::pin(Soak::new(namespace, faults, &settings).await?.run()).await
    })
    .await;
    result
        .map_err(|failure| Failure::UnexpectedState(format!("{SEED_VARIABLE}={}: {failure}", settings.seed)))
}

impl<'a> Soak<'a> {
    async fn new(
        namespace: &'a Namespace,
        faults: &'a Faults,
        settings: &'a Settings,
    ) -> Result<Self, Failure> {
        let mut nodes = namespace.cluster().list_nodes().await?;
        nodes.sort_by(|first, second| first.name.cmp(&second.name));
        let node_names = nodes.iter().map(|node| node.name.clone()).collect();
        let nodes = nodes.try_into().map_err(|nodes: Vec<_>| {
            Failure::UnexpectedState(format!("the cluster has {} nodes, expected 3", nodes.len()))
        })?;
        Ok(Self { namespace, faults, settings, nodes, node_names })
    }

    async fn run(&self) -> Result<(), Failure> {
        self.move_operator_to_connected_node().await?;
        let (mut model, backend_pods) = Model::new(
            self.settings.seed,
            &self.namespace.allocate_ports::<PORT_COUNT>().await?,
            self.node_names.clone(),
        );
        for pod in backend_pods {
            self.namespace.start_pod(&pod.build(&self.node_names[pod.node])).await?;
        }
        self.apply_all(model.complete()).await?;
        let untouched_services =
            UntouchedServices::start(self.namespace, &self.nodes, &self.namespace.allocate_ports().await?)
                .await?;
        self.wait_no_divergence(&model).await?;

        let request_log = RequestLog::new();
        let injector = FaultInjector::new(self.faults, &self.node_names, &request_log);
        let check_changes = async {
            self.check_changes_and_faults(&mut model, &injector).await?;
            self.ensure_restarts_change_nothing(&model).await?;
            untouched_services.ensure_published(self.namespace, &self.nodes).await
        };
        let result = tokio::select! {
            result = check_changes => result,
            failure = untouched_services.request_continuously(self.namespace, &request_log) => failure.map(drop),
        };
        println!("faults: {}", injector.describe());
        println!("requests: {}", request_log.describe());
        result?;
        request_log.ensure_no_unexpected_failure()
    }

    /// The third node is cut later. The operator on a cut node would be replaced, and a new process cannot show a leak.
    /// So the scheduler must start no pod on this node.
    async fn move_operator_to_connected_node(&self) -> Result<(), Failure> {
        let third_node = &self.node_names[2];
        self.faults.cordon_node(third_node).await?;
        let operator = self.faults.operator.wait_ready().await?;
        if operator.spec.and_then(|pod| pod.node_name).as_ref() == Some(third_node) {
            self.faults.operator.restart().await?;
        }
        Ok(())
    }

    /// Makes the changes, and injects the faults. Checks the memory and the state at the end.
    async fn check_changes_and_faults(
        &self,
        model: &mut Model,
        injector: &FaultInjector<'_>,
    ) -> Result<(), Failure> {
        let mut fault_generator = FaultGenerator::new(self.settings.seed);
        let time_until_baseline = self.settings.time_until_baseline();
        let schedule = fault_generator.schedule_before_baseline(time_until_baseline);
        let mut change_count = self.run_phase(model, injector, &schedule, time_until_baseline).await?;
        let baseline = ProcessMemory::measure(self.faults, &self.node_names[0]).await?;

        let remaining_time = self.settings.duration.saturating_sub(time_until_baseline);
        let schedule = fault_generator.schedule_after_baseline(remaining_time);
        change_count += self.run_phase(model, injector, &schedule, remaining_time).await?;
        let memory = ProcessMemory::measure(self.faults, &self.node_names[0]).await?;
        println!("changes: {change_count}");
        for (memory, baseline) in memory.iter().zip(&baseline) {
            println!("memory at the baseline: {}; at the end: {}", baseline.describe(), memory.describe());
        }
        for (memory, baseline) in memory.iter().zip(&baseline) {
            memory.ensure_no_leak(baseline)?;
        }
        injector.ensure_no_other_restart().await
    }

    /// Makes changes and injects faults for this time. Then creates the missing Services and repairs the rejected
    /// Services, and waits until the cluster is in the expected state. Returns the number of changes.
    async fn run_phase(
        &self,
        model: &mut Model,
        injector: &FaultInjector<'_>,
        schedule: &[ScheduledFault],
        duration: Duration,
    ) -> Result<usize, Failure> {
        let phase_start = Instant::now();
        let make_changes = async {
            let mut change_count = 0;
            while phase_start.elapsed() < duration {
                self.apply(&model.next_change()).await?;
                change_count += 1;
                sleep(AVERAGE_PAUSE_BETWEEN_CHANGES.mul_f32(model.choose_pause_factor())).await;
            }
            Ok(change_count)
        };
        let (change_count, ()) = try_join(make_changes, injector.run(schedule, phase_start)).await?;
        let last_changes = model.complete();
        println!(
            "made {change_count} changes; making {} changes to complete the Services",
            last_changes.len()
        );
        self.apply_all(last_changes).await?;
        self.wait_no_divergence(model).await?;
        Ok(change_count)
    }

    async fn wait_no_divergence(&self, model: &Model) -> Result<(), Failure> {
        DivergenceCheck { namespace: self.namespace, nodes: &self.nodes, model }.wait_no_divergence().await
    }

    async fn apply_all(&self, changes: Vec<Change>) -> Result<(), Failure> {
        for chunk in changes.chunks(PARALLEL_CHANGES) {
            try_join_all(chunk.iter().map(|change| self.apply(change))).await?;
        }
        Ok(())
    }

    /// Makes a change. Repeats failed requests, because the API server may be paused.
    async fn apply(&self, change: &Change) -> Result<(), Failure> {
        eventually("the API server has accepted the change", async || match change {
            Change::Apply(service) => self.namespace.apply(service).await.map(drop),
            Change::Delete(service) => self.namespace.delete_service_if_exists(service).await,
            Change::Replace(service) => {
                self.namespace.delete_service_if_exists(service).await?;
                self.namespace.apply(service).await.map(drop)
            }
            Change::Backend(change) => {
                if let Some(name) = &change.deleted_pod {
                    self.namespace.delete_pod_if_exists(name).await?;
                }
                if let Some(pod) = &change.created_pod {
                    self.namespace.apply_pod(&pod.build(&self.node_names[pod.node])).await?;
                }
                Ok(())
            }
        })
        .await
    }

    /// Restarts the agents and the operator, and checks that nothing changes.
    async fn ensure_restarts_change_nothing(&self, model: &Model) -> Result<(), Failure> {
        wait_tables_stable(self.faults, &self.node_names).await?;
        let snapshot_before = self.namespace.wait_stable().await?;
        for node in &self.node_names {
            ensure_restart_changes_no_rule(self.faults, node).await?;
        }
        let service_count = CHANGED_SERVICE_COUNT + UNTOUCHED_SERVICE_COUNT;
        self.faults.ensure_restart_writes_nothing(service_count).await?;
        let snapshot_after = self.namespace.wait_stable().await?;
        let differences = differences(&snapshot_before, &snapshot_after);
        ensure(differences.is_empty(), || format!("the restarts changed the Services: {differences:?}"))?;
        self.wait_no_divergence(model).await
    }
}

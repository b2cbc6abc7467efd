//! Two tenants make random changes while the operator and the agents are stopped and replaced. Each Service is
//! forwarded by the agents or by its own proxies. No change may take a port from another Service, and a new operator
//! must change nothing.

mod forged_objects;
mod model;
mod observed_state;
mod properties;

use std::time::Duration;

use e2e::{
    Failure, Faults, Namespace, Snapshot, differences, ensure, eventually, fault_test_in_shared_mode_within,
};
use fastrand::Rng;
use futures::future::try_join;
use model::{Change, Model};
use observed_state::ObservedState;
use properties::PortOwnershipProperties;
use tokio::time::sleep;

/// The number of rounds. At the end of a round, the test waits until the state is stable, and then checks all
/// properties.
const ROUND_COUNT: usize = 5;
const CHANGES_PER_ROUND: usize = 24;
/// The average pause between two changes.
const AVERAGE_PAUSE_BETWEEN_CHANGES: Duration = Duration::from_millis(250);
const TIME_LIMIT: Duration = Duration::from_mins(8);
/// The environment variable with the random seed. To repeat a failed run, set the variable to the seed of that run.
const SEED_VARIABLE: &str = "AKROBATEO_E2E_SEED";

/// The cluster under test: two tenants' namespaces, and the nodes.
struct TestedCluster<'a> {
    faults: &'a Faults,
    tenants: [Namespace; 2],
    nodes: Vec<String>,
}

fn read_seed() -> u64 {
    let seed = std::env::var(SEED_VARIABLE).ok().and_then(|seed| seed.parse().ok());
    seed.unwrap_or_else(|| Rng::new().u64(..))
}

#[tokio::test]
async fn no_random_change_takes_a_port_from_another_service() -> Result<(), Failure> {
    let seed = read_seed();
    println!("{SEED_VARIABLE}={seed}");
    let result = fault_test_in_shared_mode_within(TIME_LIMIT, async |namespace, faults| {
        let tenants =
            [namespace.create_another_namespace("a").await?, namespace.create_another_namespace("b").await?];
        let nodes = namespace.cluster().list_nodes().await?;
        let nodes: Vec<_> = nodes.into_iter().map(|node| node.name).collect();
        let backend_node_by_tenant = [0, nodes.len() - 1];
        for (tenant, node) in tenants.iter().zip(backend_node_by_tenant) {
            tenant.start_backend_on(&nodes[node]).await?;
        }
        let (ports, node_ports) = (namespace.allocate_ports().await?, namespace.allocate_node_ports().await?);
        let mut model = Model::new(seed, ports, node_ports, nodes.len());
        let cluster = TestedCluster { faults, tenants, nodes };
        let mut properties =
            PortOwnershipProperties { state_before_round: ObservedState::default(), backend_node_by_tenant };
        for round in 0..ROUND_COUNT {
            cluster.run_round(&mut model, &mut properties, round).await?;
        }
        cluster.ensure_restart_changes_nothing().await
    })
    .await;
    result.map_err(|failure| Failure::UnexpectedState(format!("{SEED_VARIABLE}={seed}: {failure}")))
}

impl TestedCluster<'_> {
    /// Makes the changes of a round, and checks the properties after each change and at the end.
    async fn run_round(
        &self,
        model: &mut Model,
        properties: &mut PortOwnershipProperties,
        round: usize,
    ) -> Result<(), Failure> {
        let reserved_port_before = model.reserved_port;
        model.start_round(round);
        if model.reserved_port != reserved_port_before {
            let reserved_ports = model.reserved_port.map(|port| format!("22,tcp/{port},udp/{port}"));
            self.faults.set_reserved_ports(reserved_ports.as_deref()).await?;
        }
        let leader = self.faults.operator.wait_leader().await?;
        let stop_index = model.rng.usize(..CHANGES_PER_ROUND);
        let agent_stop_index = model.rng.usize(..CHANGES_PER_ROUND);
        for change_index in 0..CHANGES_PER_ROUND {
            if change_index == stop_index {
                self.stop_leader(&leader, round).await?;
            }
            if change_index == agent_stop_index {
                self.stop_agent(&self.nodes[model.rng.usize(..self.nodes.len())], round).await?;
            }
            let change = model.next_change();
            println!("round {round}: {}", model.describe(&change));
            self.apply(&change).await?;
            sleep(AVERAGE_PAUSE_BETWEEN_CHANGES.mul_f32(2.0 * model.rng.f32())).await;
            properties.check_state_during_round(model, &self.read_state().await?)?;
        }
        // Without a leader the state would be stable too, so the test first waits for a new leader.
        self.faults.operator.wait_leader_other_than(&leader).await?;
        self.faults.operator.wait_ready().await?;
        let mut observed_state = ObservedState::default();
        eventually("the state is stable and has the properties", async || {
            self.wait_stable().await?;
            observed_state = self.read_state().await?;
            properties.check_stable_state(model, &observed_state)
        })
        .await?;
        properties.check_state_during_round(model, &observed_state)?;
        properties.state_before_round = observed_state;
        Ok(())
    }

    /// Stops the leader by a crash or by a graceful shutdown. A crashed leader does not release its Lease. A graceful
    /// shutdown releases the Lease.
    async fn stop_leader(&self, leader: &str, round: usize) -> Result<(), Failure> {
        if round.is_multiple_of(4) {
            self.faults.crash_operator(leader).await
        } else {
            self.faults.operator.delete_pod(leader).await
        }
    }

    /// Stops the agent of a node by a crash or by a graceful shutdown. The node keeps its rules in both cases.
    async fn stop_agent(&self, node: &str, round: usize) -> Result<(), Failure> {
        let pod = self.faults.agents.get_pod_on_node(node).await?;
        if round.is_multiple_of(2) {
            self.faults.kill_container(&pod).await?;
        }
        // The DaemonSet starts a new pod without a back-off.
        self.faults.agents.delete_pod(&pod).await
    }

    /// Makes a change. Repeats failed requests, because the API server of a busy machine may not answer in time.
    async fn apply(&self, change: &Change) -> Result<(), Failure> {
        eventually("the API server has accepted the change", async || match change {
            Change::Apply(id, service) => self.tenants[id.tenant_index].apply(service).await.map(drop),
            Change::Delete(id, service) => {
                self.tenants[id.tenant_index].delete_service_if_exists(service).await
            }
            Change::Replace(id, service) => {
                self.tenants[id.tenant_index].delete_service_if_exists(service).await?;
                self.tenants[id.tenant_index].apply(service).await.map(drop)
            }
            Change::SetPoolLabel(node, pool) => self.faults.set_pool_label(&self.nodes[*node], *pool).await,
            Change::Forge { tenant_index, imitated_service: id, port } => {
                let (tenant, imitated_tenant) =
                    (&self.tenants[*tenant_index], &self.tenants[id.tenant_index]);
                forged_objects::forge_proxies(
                    tenant,
                    imitated_tenant,
                    &format!("random-{}", id.service_index),
                    *port,
                )
                .await
            }
        })
        .await
    }

    async fn read_state(&self) -> Result<ObservedState, Failure> {
        ObservedState::read(&self.tenants, &self.nodes).await
    }

    async fn wait_stable(&self) -> Result<[Snapshot; 2], Failure> {
        let [first, second] = &self.tenants;
        try_join(first.wait_stable(), second.wait_stable()).await.map(<[Snapshot; 2]>::from)
    }

    /// Restarts the operator, which must write nothing. Compares the state before and after the restart.
    async fn ensure_restart_changes_nothing(&self) -> Result<(), Failure> {
        let snapshots_before = self.wait_stable().await?;
        let service_count: usize = snapshots_before.iter().map(Snapshot::len).sum();
        self.faults.ensure_restart_writes_nothing(service_count).await?;
        let snapshots_after = self.wait_stable().await?;
        let differences: Vec<_> = snapshots_before
            .iter()
            .zip(&snapshots_after)
            .flat_map(|(before, after)| differences(before, after))
            .collect();
        ensure(differences.is_empty(), || {
            format!("state before and after a restart of the operator:\n{}", differences.join("\n"))
        })
    }
}

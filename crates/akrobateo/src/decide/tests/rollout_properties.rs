//! Properties of the rollout of a DaemonSet, in a simulated cluster. In this cluster the DaemonSet controller creates
//! missing pods. Pods need time to start and to end. Some nodes are lost, or cannot run a proxy.

use std::sync::Arc;

use akrobateo_services::node_info::NodeInfo;
use k8s_openapi::api::core::v1::{Pod, PodCondition, PodStatus};
use proptest::prelude::*;

use super::super::fixtures::{at, key, node};
use super::super::pod_digest::is_outdated;
use super::super::pod_status::{is_ready, runs_on};
use super::super::rollout::Rollout;
use super::super::rollout_limits::{MAX_FAILED_ATTEMPTS, max_simultaneous_replacements};
use super::super::workload_fixtures::{daemonset_with_image, pod_from_template};
use super::super::{PodChanges, ServiceState, Workload};

/// The condition of a node in the simulation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NodeHealth {
    Healthy,
    /// No proxy on the node ever becomes ready.
    NeverReady,
    /// The first proxy on the node becomes ready, and its replacement never becomes ready.
    BreaksOnReplacement,
    /// The control plane has no contact with the node. The proxy of the node may still be ready.
    Lost,
}

struct SimulatedCluster {
    health: Vec<NodeHealth>,
    workload: Workload,
    pods: Vec<SimulatedPod>,
    pod_changes: PodChanges,
    /// The simulated time in seconds.
    now_seconds: i64,
    created_pod_count: usize,
}

struct SimulatedPod {
    node_index: usize,
    pod: Pod,
    ready_at_seconds: i64,
    ends_at_seconds: Option<i64>,
    is_replacement: bool,
}

fn node_name(node: usize) -> String {
    format!("n{node:03}")
}

impl SimulatedCluster {
    /// Returns a cluster whose proxies have the image `old`, and whose DaemonSet has the image `new`.
    fn new(health: Vec<NodeHealth>) -> Self {
        let workload = daemonset_with_image("old");
        let mut cluster = Self {
            health,
            workload,
            pods: Vec::new(),
            pod_changes: PodChanges::default(),
            now_seconds: 0,
            created_pod_count: 0,
        };
        cluster.create_missing_pods(0, false);
        cluster.pass_time(0);
        cluster.state();
        cluster.workload = daemonset_with_image("new");
        cluster
    }

    fn create_missing_pods(&mut self, start_seconds: i64, is_replacement: bool) {
        for node in 0..self.health.len() {
            if self.health[node] == NodeHealth::Lost && is_replacement
                || self.pods.iter().any(|pod| pod.node_index == node)
            {
                continue;
            }
            let mut pod = pod_from_template(self.workload.pod_template().unwrap(), &node_name(node));
            self.created_pod_count += 1;
            pod.metadata.name = Some(format!("pod{}", self.created_pod_count));
            pod.metadata.uid = pod.metadata.name.clone();
            let ready_at_seconds = self.now_seconds + start_seconds;
            self.pods.push(SimulatedPod {
                node_index: node,
                pod,
                ready_at_seconds,
                ends_at_seconds: None,
                is_replacement,
            });
        }
    }

    fn pass_time(&mut self, seconds: i64) {
        self.now_seconds += seconds;
        let now = self.now_seconds;
        self.pods.retain(|pod| pod.ends_at_seconds.is_none_or(|ends_at_seconds| ends_at_seconds > now));
        for pod in &mut self.pods {
            let is_broken = match self.health[pod.node_index] {
                NodeHealth::Healthy | NodeHealth::Lost => false,
                NodeHealth::NeverReady => true,
                NodeHealth::BreaksOnReplacement => pod.is_replacement,
            };
            let is_ready = !is_broken && pod.ready_at_seconds <= now;
            let condition = PodCondition {
                type_: "Ready".to_owned(),
                status: if is_ready { "True" } else { "False" }.to_owned(),
                ..PodCondition::default()
            };
            pod.pod.status = Some(PodStatus { conditions: Some(vec![condition]), ..PodStatus::default() });
        }
    }

    fn state(&mut self) -> ServiceState {
        let simulated_node = |(index, health): (usize, &NodeHealth)| {
            let node = node(&node_name(index));
            NodeInfo::from_node(
                &if *health == NodeHealth::Lost { node.with_ready_unknown() } else { node }.build(),
            )
        };
        let nodes: Vec<_> = self.health.iter().enumerate().map(simulated_node).collect();
        let pods: Vec<_> = self.pods.iter().map(|pod| Arc::new(pod.pod.clone())).collect();
        let pod_change_times =
            self.pod_changes.update(&key("web"), true, &pods, &nodes, |_| true, at(self.now_seconds));
        ServiceState { pods, nodes: Arc::new(nodes), pod_change_times, ..ServiceState::default() }
    }

    /// Plans and executes one step of the rollout, and simulates the reaction of the cluster. Returns the plan.
    fn step(&mut self, termination_seconds: i64, start_seconds: i64) -> Rollout {
        let state = self.state();
        let rollout = Rollout::plan(&self.workload, &state, at(self.now_seconds));
        for deleted in &rollout.pods_to_delete {
            let pod = self.pods.iter_mut().find(|pod| pod.pod.metadata.uid.as_ref() == Some(&deleted.uid));
            let pod = pod.expect("the deleted pod exists");
            assert!(
                self.health[pod.node_index] != NodeHealth::Lost,
                "a pod of a lost node cannot be deleted"
            );
            pod.ends_at_seconds = Some(self.now_seconds + termination_seconds);
            pod.pod.metadata.deletion_timestamp =
                Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at(self.now_seconds)));
        }
        self.pass_time(1);
        self.create_missing_pods(start_seconds, true);
        self.pass_time(0);
        rollout
    }

    /// Returns the number of nodes with this health and a ready proxy. The proxy may be old or new.
    fn count_nodes_with_ready_proxy(&self, health: NodeHealth) -> usize {
        let has_ready_proxy = |node: &usize| {
            let name = node_name(*node);
            self.pods.iter().any(|pod| runs_on(&pod.pod, &name) && is_ready(&pod.pod))
        };
        (0..self.health.len()).filter(|node| self.health[*node] == health).filter(has_ready_proxy).count()
    }

    fn count_nodes(&self, health: NodeHealth) -> usize {
        self.health.iter().filter(|other| **other == health).count()
    }

    /// Returns true if each healthy node has a ready proxy of the new template.
    fn is_rolled_out(&self) -> bool {
        let template = self.workload.pod_template().unwrap();
        let healthy_pods = self.pods.iter().filter(|pod| self.health[pod.node_index] == NodeHealth::Healthy);
        self.count_nodes_with_ready_proxy(NodeHealth::Healthy) == self.count_nodes(NodeHealth::Healthy)
            && healthy_pods.into_iter().all(|pod| !is_outdated(&pod.pod, template))
    }
}

/// Generates the health of all nodes of a cluster. At least two nodes are healthy. A replacement fails on at most two
/// nodes.
fn any_node_health() -> impl Strategy<Value = Vec<NodeHealth>> {
    let unavailable_nodes =
        prop::collection::vec(prop_oneof![Just(NodeHealth::NeverReady), Just(NodeHealth::Lost)], 0..8);
    (2..25_usize, 0..3_usize, unavailable_nodes)
        .prop_map(|(healthy_count, breaking_count, unavailable_nodes)| {
            let healthy_count = std::iter::repeat_n(NodeHealth::Healthy, healthy_count);
            let breaking_count = std::iter::repeat_n(NodeHealth::BreaksOnReplacement, breaking_count);
            healthy_count.chain(breaking_count).chain(unavailable_nodes).collect::<Vec<_>>()
        })
        .prop_shuffle()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn rollout_reaches_all_healthy_nodes_and_interrupts_few_nodes_at_a_time(
        health in any_node_health(),
        termination_seconds in 1..4_i64,
        start_seconds in 1..4_i64,
    ) {
        let mut cluster = SimulatedCluster::new(health);
        let healthy_count = cluster.count_nodes(NodeHealth::Healthy);
        let reachable_count = cluster.health.len() - cluster.count_nodes(NodeHealth::Lost);
        let limit = max_simultaneous_replacements(reachable_count);
        // A failed replacement takes a little more than one minute.
        let deadline = cluster.now_seconds + 3 * 61 + i64::try_from(healthy_count).unwrap() * (termination_seconds + start_seconds + 3);
        while !cluster.is_rolled_out() {
            cluster.step(termination_seconds, start_seconds);
            let interrupted_count = healthy_count - cluster.count_nodes_with_ready_proxy(NodeHealth::Healthy);
            prop_assert!(interrupted_count <= limit, "{} nodes are interrupted, expected at most {}", interrupted_count, limit);
            prop_assert!(cluster.now_seconds <= deadline, "the rollout does not end: {:?}", cluster.health);
        }
        // Only lost nodes keep outdated proxies.
        for _ in 0..10 {
            cluster.step(termination_seconds, start_seconds);
            cluster.pass_time(60);
        }
        let rollout = cluster.step(termination_seconds, start_seconds);
        prop_assert_eq!(rollout.outdated_proxies.len(), cluster.count_nodes(NodeHealth::Lost));
        prop_assert!(rollout.outdated_proxies.iter().all(|proxy| proxy.delay.is_some()));
    }

    #[test]
    fn rollout_that_fails_on_all_nodes_stops_after_a_few_nodes(
        available_count in 1..30_usize,
        unavailable_count in 0..5_usize,
        start_seconds in 1..4_i64,
    ) {
        let health: Vec<_> = std::iter::repeat_n(NodeHealth::BreaksOnReplacement, available_count)
            .chain(std::iter::repeat_n(NodeHealth::NeverReady, unavailable_count))
            .collect();
        let mut cluster = SimulatedCluster::new(health);
        let mut last_rollout = Rollout::default();
        for _ in 0..60 {
            last_rollout = cluster.step(1, start_seconds);
            cluster.pass_time(10);
        }
        let ready_proxy_count = cluster.count_nodes_with_ready_proxy(NodeHealth::BreaksOnReplacement);
        if available_count > 1 {
            let min_ready_count = available_count.saturating_sub(MAX_FAILED_ATTEMPTS).max(1);
            prop_assert!(ready_proxy_count >= min_ready_count, "only {} proxies are ready", ready_proxy_count);
            prop_assert!(last_rollout.outdated_proxies.iter().any(|proxy| proxy.delay.is_some()), "{:?}", last_rollout);
            prop_assert_eq!(last_rollout.recheck_at, None);
        }
    }
}

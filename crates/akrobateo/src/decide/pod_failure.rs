//! Reads the status of proxy pods, and describes why a pod does not run. Pure.

use std::collections::BTreeSet;
use std::sync::Arc;

use akrobateo_services::node_info::NodeInfo;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};

use super::pod_status::{host_ports, is_scheduled, runs_on, target_node};
use crate::reason::Reason;

/// The maximum number of ports in a message.
const MAX_LISTED_PORTS: usize = 5;

/// The waiting reasons of containers during a normal start.
const WAITING_REASONS_DURING_START: [&str; 2] = ["ContainerCreating", "PodInitializing"];

/// The cause of a proxy pod's failure, for the condition and the event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PodFailure {
    pub(super) reason: Reason,
    pub(super) message: String,
}

impl PodFailure {
    fn not_ready(message: String) -> Self {
        Self { reason: Reason::ProxiesNotReady, message }
    }
}

/// Returns the cause of the first pod failure; `None` if all pods run or start normally. If several pods fail, the
/// message describes the failing pod with the first name.
///
/// The message does not change with each retry, because each change of the condition causes a write and an event.
///
/// `proxy_nodes` are the nodes on which the pods may run.
pub(super) fn find_pod_failure(pods: &[Arc<Pod>], proxy_nodes: &[&NodeInfo]) -> Option<PodFailure> {
    let mut existing_pods: Vec<_> =
        pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).collect();
    existing_pods.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
    existing_pods.into_iter().find_map(|pod| {
        if waits_for_proxies_of_same_service(pod, pods, proxy_nodes) {
            return None;
        }
        find_scheduling_failure(pod, pods).or_else(|| find_container_failure(pod))
    })
}

/// Returns true if Kubernetes reports a failure of the pod. A starting pod does not fail.
pub(super) fn is_failing(pod: &Pod) -> bool {
    find_scheduling_failure(pod, &[]).is_some() || find_container_failure(pod).is_some()
}

/// Returns true if the pod waits for a node because other proxies of the same Service use the ports on each possible
/// node.
fn waits_for_proxies_of_same_service(pod: &Pod, pods: &[Arc<Pod>], proxy_nodes: &[&NodeInfo]) -> bool {
    let has_proxy = |node: &str| pods.iter().any(|pod| runs_on(pod, node));
    !is_scheduled(pod)
        && target_node(pod).map_or_else(
            || {
                let mut reachable_nodes = proxy_nodes.iter().filter(|node| !node.is_lost()).peekable();
                reachable_nodes.peek().is_some() && reachable_nodes.all(|node| has_proxy(&node.name))
            },
            has_proxy,
        )
}

/// Returns the cause if the scheduler finds no node for the pod. `pods` are all proxies of the Service.
fn find_scheduling_failure(pod: &Pod, pods: &[Arc<Pod>]) -> Option<PodFailure> {
    let mut conditions = pod.status.as_ref()?.conditions.iter().flatten();
    let unscheduled_condition =
        conditions.find(|condition| condition.type_ == "PodScheduled" && condition.status == "False")?;
    let mut causes = scheduling_causes(unscheduled_condition.message.as_deref()?);
    let is_port_in_use = |cause: &SchedulingCause| cause.text.contains("free ports");
    if let Some(port_in_use) = causes.iter().find(|cause| is_port_in_use(cause)) {
        let has_same_port = |other: &Pod| !host_ports(other).is_disjoint(&host_ports(pod));
        let proxies_with_port = pods.iter().filter(|other| is_scheduled(other) && has_same_port(other));
        let nodes_with_proxy: BTreeSet<_> = proxies_with_port.filter_map(|pod| target_node(pod)).collect();
        let is_used_by_other_pod =
            target_node(pod).is_some() || port_in_use.node_count > nodes_with_proxy.len();
        if is_used_by_other_pod || causes.len() == 1 {
            return Some(PodFailure { reason: Reason::PortInUse, message: port_in_use_message(pod) });
        }
        // Only proxies of the same Service use the ports. The other causes tell why the pod does not run elsewhere.
        causes.retain(|cause| !is_port_in_use(cause));
    }
    let causes = causes.into_iter().map(|cause| cause.text).collect::<Vec<_>>().join(", ");
    Some(PodFailure::not_ready(format!("a proxy pod cannot be scheduled: {causes}")))
}

/// Returns the message about a pod that waits for a port.
///
/// The scheduler's message mentions neither the port nor the pod that uses the port. To find that pod, the operator
/// would need the right to read all pods of the cluster.
fn port_in_use_message(pod: &Pod) -> String {
    let ports = host_ports(pod).into_iter().map(|port| port.to_string()).collect::<Vec<_>>();
    let (subject, listed_ports) = match ports.len() {
        0 | 1 => ("port", ports.join("")),
        count if count > MAX_LISTED_PORTS => {
            ("one of the ports", format!("{} and others", ports[..MAX_LISTED_PORTS].join(", ")))
        }
        _ => ("one of the ports", ports.join(", ")),
    };
    let location =
        target_node(pod).map_or_else(|| "each possible node".to_owned(), |node| format!("node {node}"));
    format!(
        "{subject} {listed_ports} on {location} is in use by another pod; use another port, select other nodes, or remove \
         that pod (kubectl get pods --all-namespaces --output wide lists the pods)"
    )
}

/// A cause in the scheduler's message.
struct SchedulingCause {
    /// The number of nodes; 0 if the message does not contain it.
    node_count: usize,
    text: String,
}

/// Returns the causes in the scheduler's message, sorted by their texts. The message in a condition omits the parts that
/// change often but do not help the user. These parts are the numbers of nodes, the order of the causes, and remarks
/// about preemption. An example of the scheduler's message: `0/3 nodes are available: 1 node(s) had A, 2 node(s) had B.
/// preemption: …`.
fn scheduling_causes(message: &str) -> Vec<SchedulingCause> {
    let message = message.split_once(" preemption:").map_or(message, |(causes, _)| causes);
    let Some((_, causes)) = message.split_once(" nodes are available: ") else {
        return vec![SchedulingCause { node_count: 0, text: message.trim().to_owned() }];
    };
    let parse_cause = |cause: &str| {
        let text = cause.trim().trim_start_matches(|c: char| c.is_ascii_digit());
        let node_count = cause.trim().strip_suffix(text).and_then(|count| count.parse().ok());
        SchedulingCause { node_count: node_count.unwrap_or(0), text: text.trim_start().to_owned() }
    };
    let mut causes: Vec<_> = causes.trim().trim_end_matches('.').split(", ").map(parse_cause).collect();
    causes.sort_by(|a, b| a.text.cmp(&b.text));
    causes
}

fn find_container_failure(pod: &Pod) -> Option<PodFailure> {
    let status = pod.status.as_ref()?;
    let init_containers = status.init_container_statuses.iter().flatten();
    let mut containers = init_containers.chain(status.container_statuses.iter().flatten());
    let cause = containers.find_map(find_failure_cause)?;
    Some(PodFailure::not_ready(format!("a proxy pod does not run: {cause}")))
}

/// Returns the cause of a container's failure. A container that crashes repeatedly changes between several states. The
/// message is the same in all these states.
fn find_failure_cause(container: &ContainerStatus) -> Option<String> {
    let state = container.state.as_ref();
    let states = [state, container.last_state.as_ref()].into_iter().flatten();
    let mut terminations = states.filter_map(|state| state.terminated.as_ref());
    let message = terminations.find_map(|terminated| {
        let message = terminated.message.as_deref().map(str::trim);
        message.filter(|message| terminated.exit_code != 0 && !message.is_empty())
    });
    let waiting_reason =
        state.and_then(|state| state.waiting.as_ref()).and_then(|waiting| waiting.reason.as_deref());
    let reason =
        waiting_reason.filter(|reason| !WAITING_REASONS_DURING_START.contains(reason)).map(|reason| {
            match reason {
                "ImagePullBackOff" => "ErrImagePull",
                reason => reason,
            }
        });
    message.filter(|_| !container.ready).or(reason).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{ContainerState, ContainerStateRunning};

    use super::*;
    use crate::decide::fixtures::{node, pod};

    fn failure_message(pod: Pod) -> Option<String> {
        find_pod_failure(&[Arc::new(pod)], &[]).map(|failure| failure.message)
    }

    #[test]
    fn starting_pod_does_not_count_as_failing() {
        assert_eq!(failure_message(pod("a").on("n1").build()), None);
        assert_eq!(failure_message(pod("a").on("n1").waiting("ContainerCreating").build()), None);
    }

    #[test]
    fn message_quotes_the_waiting_reason_of_a_container_that_never_started() {
        let failure = failure_message(pod("a").on("n1").waiting("ErrImagePull").build());
        assert_eq!(failure.unwrap(), "a proxy pod does not run: ErrImagePull");
    }

    #[test]
    fn message_mentions_a_port_of_another_pod_with_its_node() {
        let message = "0/3 nodes are available: 1 node(s) didn't have free ports for the requested pod ports. \
                       preemption: 0/3 nodes are available: 3 No preemption victims found.";
        let waiting_pod = pod("a").host_port(8081).restricted_to_node("n1").unscheduled(message).build();
        let failure = find_pod_failure(&[Arc::new(waiting_pod)], &[]).unwrap();
        assert_eq!(failure.reason, Reason::PortInUse);
        let start = "port 8081/TCP on node n1 is in use by another pod; use another port";
        assert!(failure.message.starts_with(start), "{}", failure.message);
        let waiting_pod = pod("a").host_port(80).host_port(443).unscheduled(message).build();
        let failure = failure_message(waiting_pod).unwrap();
        let start = "one of the ports 80/TCP, 443/TCP on each possible node is in use by another pod";
        assert!(failure.starts_with(start), "{failure}");
    }

    #[test]
    fn pod_that_waits_for_its_own_service_does_not_count_as_failing() {
        let nodes = ["n1", "n2"].map(|name| NodeInfo::from_node(&node(name).build()));
        let lost_node = NodeInfo::from_node(&node("n3").with_ready_unknown().build());
        let message =
            "0/3 nodes are available: 2 node(s) didn't have free ports for the requested pod ports.";
        let waiting_pod = || pod("waiting").host_port(80).unscheduled(message);
        let failure_with_ready_proxies = |waiting_pod: Pod, nodes_with_proxy: &[&str]| {
            let ready_pods = nodes_with_proxy.iter().map(|name| pod(name).on(name).ready().build());
            let pods: Vec<_> = ready_pods.chain([waiting_pod]).map(Arc::new).collect();
            find_pod_failure(&pods, &[&nodes[0], &nodes[1], &lost_node])
        };
        assert_eq!(failure_with_ready_proxies(waiting_pod().build(), &["n1", "n2"]), None);
        assert_eq!(failure_with_ready_proxies(waiting_pod().restricted_to_node("n1").build(), &["n1"]), None);
        assert!(failure_with_ready_proxies(waiting_pod().build(), &["n1"]).is_some());
        assert!(
            failure_with_ready_proxies(waiting_pod().restricted_to_node("n2").build(), &["n1"]).is_some()
        );
    }

    #[test]
    fn ports_of_the_same_service_do_not_hide_the_cause_on_other_nodes() {
        let nodes = ["n1", "n2", "n3"].map(|name| NodeInfo::from_node(&node(name).build()));
        let waiting_pod = |message: &str| pod("waiting").host_port(80).unscheduled(message);
        let failure_with_proxies = |waiting_pod: Pod, nodes_with_proxy: &[&str], port: u16| {
            let ready_pods =
                nodes_with_proxy.iter().map(|name| pod(name).on(name).host_port(port).ready().build());
            let pods: Vec<_> = ready_pods.chain([waiting_pod]).map(Arc::new).collect();
            find_pod_failure(&pods, &[&nodes[0], &nodes[1], &nodes[2]]).unwrap()
        };
        let message = "0/3 nodes are available: 1 node(s) were unschedulable, 2 node(s) didn't have free ports for the \
                       requested pod ports.";
        let failure = failure_with_proxies(waiting_pod(message).build(), &["n2", "n3"], 80);
        let expected_message = "a proxy pod cannot be scheduled: node(s) were unschedulable";
        assert_eq!(failure, PodFailure::not_ready(expected_message.to_owned()));
        for (nodes_with_proxy, port) in [(&["n2"][..], 80), (&["n2", "n3"], 81)] {
            let failure = failure_with_proxies(waiting_pod(message).build(), nodes_with_proxy, port);
            assert_eq!(failure.reason, Reason::PortInUse);
        }
        // The pod of a DaemonSet has one node.
        let message = "0/3 nodes are available: 1 node(s) didn't have free ports for the requested pod ports, 2 node(s) \
                       didn't satisfy plugin(s) [NodeAffinity].";
        let waiting_pod = waiting_pod(message).restricted_to_node("n3").build();
        assert_eq!(failure_with_proxies(waiting_pod, &["n1", "n2"], 80).reason, Reason::PortInUse);
    }

    #[test]
    fn message_quotes_a_scheduling_failure_without_remarks_about_preemption() {
        let message = "0/3 nodes are available: 3 Insufficient cpu. preemption: 0/3 nodes are available.";
        let failure = failure_message(pod("a").unscheduled(message).build()).unwrap();
        assert_eq!(failure, "a proxy pod cannot be scheduled: Insufficient cpu");
    }

    #[test]
    fn message_quotes_the_termination_message_of_a_crashed_proxy() {
        let failure = failure_message(pod("a").on("n1").crashed("no nf_tables in this kernel").build());
        assert_eq!(failure.unwrap(), "a proxy pod does not run: no nf_tables in this kernel");
    }

    #[test]
    fn message_stays_the_same_while_a_pod_fails_repeatedly() {
        let pull_errors = ["ErrImagePull", "ImagePullBackOff"];
        let pull_messages =
            pull_errors.map(|reason| failure_message(pod("a").on("n1").waiting(reason).build()));
        assert_eq!(pull_messages[0], pull_messages[1]);
        let crashed_pod = || pod("a").on("n1").crashed("no nf_tables in this kernel").build();
        let mut restarted_pod = crashed_pod();
        let statuses = restarted_pod.status.as_mut().unwrap().container_statuses.as_mut().unwrap();
        statuses[0].state =
            Some(ContainerState { running: Some(ContainerStateRunning::default()), ..Default::default() });
        assert_eq!(failure_message(restarted_pod), failure_message(crashed_pod()));
        let scheduler_messages = [
            "0/2 nodes are available: 1 node(s) had A, 1 node(s) had B.",
            "0/3 nodes are available: 1 node(s) had B, 2 node(s) had A. preemption: none",
        ];
        let messages =
            scheduler_messages.map(|message| failure_message(pod("a").unscheduled(message).build()));
        assert_eq!(messages[0], messages[1]);
    }
}

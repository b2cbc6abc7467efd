//! Describes why proxy pods do not run, from their status. Pure.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::ResourceExt;

/// Reasons of containers that wait during a normal start.
const STARTING_REASONS: [&str; 2] = ["ContainerCreating", "PodInitializing"];

/// Returns the reason why a pod does not run, or `None` if no pod fails. If several pods fail, uses the first pod by
/// name.
///
/// The text has no part that changes with each retry, because each change of the condition causes a write and an event.
pub(super) fn pod_failure(pods: &[Arc<Pod>]) -> Option<String> {
    let mut pods: Vec<_> = pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).collect();
    pods.sort_by_key(|pod| pod.name_any());
    pods.into_iter().find_map(|pod| scheduling_failure(pod).or_else(|| container_failure(pod)))
}

fn scheduling_failure(pod: &Pod) -> Option<String> {
    let mut conditions = pod.status.as_ref()?.conditions.iter().flatten();
    let unscheduled =
        conditions.find(|condition| condition.type_ == "PodScheduled" && condition.status == "False")?;
    let message = unscheduled.message.as_deref()?;
    let cause = stable_scheduler_message(message);
    let hint = if cause.contains("free ports") {
        " (another pod uses the same hostPort; use another port or remove that pod)"
    } else {
        ""
    };
    Some(format!("a proxy pod cannot be scheduled: {cause}{hint}"))
}

/// Removes the parts of the scheduler's message that change without help to the reader: the numbers of nodes, their order,
/// and remarks about preemption. An example: `0/3 nodes are available: 1 node(s) had A, 2 node(s) had B. preemption: …`.
fn stable_scheduler_message(message: &str) -> String {
    let cause = message.split_once(" preemption:").map_or(message, |(cause, _)| cause);
    let Some((_, causes)) = cause.split_once(" nodes are available: ") else {
        return cause.trim().to_owned();
    };
    let without_number =
        |part: &str| part.trim().trim_start_matches(|c: char| c.is_ascii_digit()).trim_start().to_owned();
    let mut causes: Vec<_> = causes.trim().trim_end_matches('.').split(", ").map(without_number).collect();
    causes.sort();
    causes.join(", ")
}

fn container_failure(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    let init_containers = status.init_container_statuses.iter().flatten();
    let mut containers = init_containers.chain(status.container_statuses.iter().flatten());
    let cause = containers.find_map(failure_cause)?;
    Some(format!("a proxy pod does not run: {cause}"))
}

/// Returns why a container does not run. A container that crashes again and again alternates between several states, for
/// which the cause is the same.
fn failure_cause(container: &ContainerStatus) -> Option<String> {
    let state = container.state.as_ref();
    let terminations = [state, container.last_state.as_ref()].into_iter().flatten();
    let mut terminations = terminations.filter_map(|state| state.terminated.as_ref());
    let message = terminations.find_map(|terminated| {
        let message = terminated.message.as_deref().map(str::trim);
        message.filter(|message| terminated.exit_code != 0 && !message.is_empty())
    });
    let waiting =
        state.and_then(|state| state.waiting.as_ref()).and_then(|waiting| waiting.reason.as_deref());
    let reason = waiting.filter(|reason| !STARTING_REASONS.contains(reason)).map(|reason| match reason {
        "ImagePullBackOff" => "ErrImagePull",
        reason => reason,
    });
    message.filter(|_| !container.ready).or(reason).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{ContainerState, ContainerStateRunning};

    use super::*;
    use crate::decide::fixtures::pod;

    fn failure_of(pod: Pod) -> Option<String> {
        pod_failure(&[Arc::new(pod)])
    }

    #[test]
    fn a_starting_pod_is_no_failure() {
        assert_eq!(failure_of(pod("a").on("n1").build()), None);
        assert_eq!(failure_of(pod("a").on("n1").waiting("ContainerCreating").build()), None);
    }

    #[test]
    fn the_reason_of_a_pod_that_never_started_is_quoted() {
        let failure = failure_of(pod("a").on("n1").waiting("ErrImagePull").build());
        assert_eq!(failure.unwrap(), "a proxy pod does not run: ErrImagePull");
    }

    #[test]
    fn the_message_about_a_used_host_port_omits_the_remarks_about_preemption() {
        let message = "0/3 nodes are available: 1 node(s) didn't have free ports for the requested pod ports. \
                       preemption: 0/3 nodes are available: 3 No preemption victims found.";
        let failure = failure_of(pod("a").unscheduled(message).build()).unwrap();
        assert!(failure.contains("didn't have free ports"), "{failure}");
        assert!(failure.contains("another pod uses the same hostPort"), "{failure}");
        assert!(!failure.contains("preemption"), "{failure}");
    }

    #[test]
    fn the_termination_message_of_a_crashed_proxy_is_quoted() {
        let failure = failure_of(pod("a").on("n1").crashed("no nf_tables in this kernel").build());
        assert_eq!(failure.unwrap(), "a proxy pod does not run: no nf_tables in this kernel");
    }

    #[test]
    fn the_text_stays_the_same_while_a_pod_keeps_failing() {
        let pulling = ["ErrImagePull", "ImagePullBackOff"];
        let pulling = pulling.map(|reason| failure_of(pod("a").on("n1").waiting(reason).build()));
        assert_eq!(pulling[0], pulling[1]);
        let crashed = || pod("a").on("n1").crashed("no nf_tables in this kernel").build();
        let mut restarted = crashed();
        let statuses = restarted.status.as_mut().unwrap().container_statuses.as_mut().unwrap();
        statuses[0].state =
            Some(ContainerState { running: Some(ContainerStateRunning::default()), ..Default::default() });
        assert_eq!(failure_of(restarted), failure_of(crashed()));
        let unscheduled = [
            "0/2 nodes are available: 1 node(s) had A, 1 node(s) had B.",
            "0/3 nodes are available: 1 node(s) had B, 2 node(s) had A. preemption: none",
        ];
        let unscheduled = unscheduled.map(|message| failure_of(pod("a").unscheduled(message).build()));
        assert_eq!(unscheduled[0], unscheduled[1]);
    }
}

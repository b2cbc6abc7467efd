//! Reads the status of proxy pods, and describes why they do not run. Pure.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

/// Reasons of containers that wait during a normal start.
const WAITING_REASONS_DURING_START: [&str; 2] = ["ContainerCreating", "PodInitializing"];

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
    // The scheduler's remarks about preemption change often and do not help.
    let cause = message.split_once(" preemption:").map_or(message, |(cause, _)| cause).trim_end();
    let hint = if cause.contains("free ports") {
        " (another pod uses the same hostPort; use another port or remove that pod)"
    } else {
        ""
    };
    Some(format!("a proxy pod cannot be scheduled: {cause}{hint}"))
}

fn container_failure(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    let init_containers = status.init_container_statuses.iter().flatten();
    for container in init_containers.chain(status.container_statuses.iter().flatten()) {
        let waiting = container.state.as_ref().and_then(|state| state.waiting.as_ref());
        let Some(reason) = waiting.and_then(|waiting| waiting.reason.as_deref()) else { continue };
        if WAITING_REASONS_DURING_START.contains(&reason) {
            continue;
        }
        let last_termination = container.last_state.as_ref().and_then(|state| state.terminated.as_ref());
        let message = last_termination.and_then(|terminated| terminated.message.as_deref()).map(str::trim);
        let cause = message.filter(|message| !message.is_empty()).unwrap_or(reason);
        return Some(format!("a proxy pod does not run: {cause}"));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::fixtures::pod;

    fn failure_message(pod: Pod) -> Option<String> {
        pod_failure(&[Arc::new(pod)])
    }

    #[test]
    fn a_starting_pod_is_no_failure() {
        assert_eq!(failure_message(pod("a").on("n1").build()), None);
        assert_eq!(failure_message(pod("a").on("n1").waiting("ContainerCreating").build()), None);
    }

    #[test]
    fn the_waiting_reason_of_a_container_that_never_started_is_quoted() {
        let failure = failure_message(pod("a").on("n1").waiting("ErrImagePull").build());
        assert_eq!(failure.unwrap(), "a proxy pod does not run: ErrImagePull");
    }

    #[test]
    fn the_message_about_a_used_host_port_omits_the_remarks_about_preemption() {
        let message = "0/3 nodes are available: 1 node(s) didn't have free ports for the requested pod ports. \
                       preemption: 0/3 nodes are available: 3 No preemption victims found.";
        let failure = failure_message(pod("a").unscheduled(message).build()).unwrap();
        assert!(failure.contains("didn't have free ports"), "{failure}");
        assert!(failure.contains("another pod uses the same hostPort"), "{failure}");
        assert!(!failure.contains("preemption"), "{failure}");
    }

    #[test]
    fn the_termination_message_of_a_crashed_proxy_is_quoted() {
        let failure = failure_message(pod("a").on("n1").crashed("no nf_tables in this kernel").build());
        assert_eq!(failure.unwrap(), "a proxy pod does not run: no nf_tables in this kernel");
    }
}

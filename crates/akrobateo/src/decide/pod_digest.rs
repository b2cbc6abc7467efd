//! Finds outdated pods. A pod is outdated if a new pod from the current pod template would forward in a different way.
//! Pure.
//!
//! Kubernetes compares whole templates. The operator compares only some fields, because a new placement or a new probe
//! must not interrupt forwarding.

use k8s_openapi::api::core::v1::{Container, ContainerPort, Pod, PodSpec, PodTemplateSpec};
use kube::ResourceExt;

use super::drift::spec_digest;

/// The annotation of pods and pod templates with the digest of the fields that determine the forwarding.
pub(super) const FORWARDING_DIGEST_ANNOTATION: &str = "akrobateo.io/forwarding-digest";
/// The annotation that `kubectl rollout restart` sets in a pod template.
const RESTARTED_AT_ANNOTATION: &str = "kubectl.kubernetes.io/restartedAt";

/// Returns the digest of the fields that determine the forwarding.
pub(super) fn forwarding_digest(spec: &PodSpec) -> String {
    spec_digest(&forwarding_fields(spec))
}

/// Returns true if a new pod would forward in a different way, or if `kubectl rollout restart` was called after the
/// creation of the pod.
pub(super) fn is_outdated(pod: &Pod, template: &PodTemplateSpec) -> bool {
    let template_annotation = |name: &str| template.metadata.as_ref()?.annotations.as_ref()?.get(name);
    let pod_annotation = |name: &str| pod.annotations().get(name);
    let restarted_at = template_annotation(RESTARTED_AT_ANNOTATION);
    if restarted_at.is_some() && restarted_at != pod_annotation(RESTARTED_AT_ANNOTATION) {
        return true;
    }
    template_annotation(FORWARDING_DIGEST_ANNOTATION) != pod_annotation(FORWARDING_DIGEST_ANNOTATION)
}

/// Returns the fields of the spec that determine the forwarding: all fields except placement, probes, resources, and
/// ports without a hostPort.
fn forwarding_fields(spec: &PodSpec) -> PodSpec {
    let has_host_port = |port: &&ContainerPort| port.host_port.is_some();
    let container_forwarding_fields = |container: &Container| Container {
        liveness_probe: None,
        readiness_probe: None,
        resources: None,
        ports: container.ports.as_ref().map(|ports| ports.iter().filter(has_host_port).cloned().collect()),
        ..container.clone()
    };
    PodSpec {
        affinity: None,
        tolerations: None,
        topology_spread_constraints: None,
        init_containers: spec
            .init_containers
            .as_ref()
            .map(|containers| containers.iter().map(container_forwarding_fields).collect()),
        containers: spec.containers.iter().map(container_forwarding_fields).collect(),
        ..spec.clone()
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{Affinity, Probe};

    use super::*;
    use crate::decide::workload_fixtures::{daemonset, pod_from_template};

    fn template() -> PodTemplateSpec {
        daemonset(&[], None).pod_template().cloned().unwrap()
    }

    fn edited_template(edit: impl Fn(&mut PodSpec)) -> PodTemplateSpec {
        let mut template = template();
        let spec = template.spec.as_mut().unwrap();
        edit(spec);
        let digest = forwarding_digest(spec);
        let annotations = template.metadata.get_or_insert_default().annotations.get_or_insert_default();
        annotations.insert(FORWARDING_DIGEST_ANNOTATION.to_owned(), digest);
        template
    }

    #[test]
    fn changed_forwarding_makes_pods_outdated() {
        let pod = pod_from_template(&template(), "n1");
        let edits: [&dyn Fn(&mut PodSpec); 4] = [
            &|spec| spec.containers[0].image = Some("lb:next".to_owned()),
            &|spec| spec.containers[0].args = Some(vec!["--forward=tcp/81=10.97.0.7:81".to_owned()]),
            &|spec| spec.containers[0].ports = None,
            &|spec| spec.host_network = Some(true),
        ];
        for edit in edits {
            assert!(is_outdated(&pod, &edited_template(edit)));
        }
    }

    #[test]
    fn change_of_placement_or_probe_or_metrics_does_not_make_pods_outdated() {
        let pod = pod_from_template(&template(), "n1");
        let edits: [&dyn Fn(&mut PodSpec); 5] = [
            &|_| (),
            &|spec| spec.affinity = Some(Affinity::default()),
            &|spec| spec.tolerations = Some(Vec::new()),
            &|spec| spec.containers[0].liveness_probe = Some(Probe::default()),
            &|spec| {
                let port = ContainerPort { container_port: 10290, ..ContainerPort::default() };
                spec.containers[0].ports.as_mut().unwrap().push(port);
            },
        ];
        for edit in edits {
            assert!(!is_outdated(&pod, &edited_template(edit)));
        }
    }

    #[test]
    fn rollout_restart_makes_earlier_pods_outdated() {
        let pod = pod_from_template(&template(), "n1");
        let mut restarted_template = template();
        let annotations = restarted_template.metadata.as_mut().unwrap().annotations.as_mut().unwrap();
        annotations.insert(RESTARTED_AT_ANNOTATION.to_owned(), "2026-01-01T00:00:00Z".to_owned());
        assert!(is_outdated(&pod, &restarted_template));
        let new_pod = pod_from_template(&restarted_template, "n1");
        assert!(!is_outdated(&new_pod, &restarted_template));
        assert!(!is_outdated(&new_pod, &template()));
    }
}

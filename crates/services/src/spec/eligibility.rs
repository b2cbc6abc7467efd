//! Decides if Akrobateo serves a Service. Pure.

use akrobateo_core::LOAD_BALANCER_CLASS;
use k8s_openapi::api::core::v1::Service;

/// The reason why Akrobateo does not serve a Service.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IneligibilityReason {
    #[error("its type is not LoadBalancer")]
    OtherType,
    #[error("its loadBalancerClass {0} belongs to another implementation")]
    OtherClass(String),
    #[error(
        "it has no loadBalancerClass, and the operator serves only the class {LOAD_BALANCER_CLASS}, because its setting \
         DEFAULT_CLASS is false"
    )]
    NoClass,
    #[error("it has no cluster IP")]
    Headless,
    #[error("it is being deleted")]
    Terminating,
}

/// Returns the reason why Akrobateo does not serve this Service; `None` if Akrobateo serves it.
#[must_use]
pub fn ineligibility_reason(service: &Service, is_default_class: bool) -> Option<IneligibilityReason> {
    let spec = service.spec.as_ref().filter(|spec| spec.type_.as_deref() == Some("LoadBalancer"));
    let Some(spec) = spec else { return Some(IneligibilityReason::OtherType) };
    match spec.load_balancer_class.as_deref() {
        None if !is_default_class => return Some(IneligibilityReason::NoClass),
        Some(class) if class != LOAD_BALANCER_CLASS => {
            return Some(IneligibilityReason::OtherClass(class.to_owned()));
        }
        _ => (),
    }
    if spec.cluster_ip.as_deref().is_none_or(|ip| ip.is_empty() || ip == "None") {
        return Some(IneligibilityReason::Headless);
    }
    service.metadata.deletion_timestamp.is_some().then_some(IneligibilityReason::Terminating)
}

/// Returns true if Akrobateo serves this Service.
#[must_use]
pub fn is_eligible(service: &Service, is_default_class: bool) -> bool {
    ineligibility_reason(service, is_default_class).is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::service;

    #[test]
    fn services_without_a_class_or_with_the_akrobateo_class_are_eligible() {
        assert!(is_eligible(&service("web").build(), true));
        assert!(is_eligible(&service("web").class("akrobateo.io/lb").build(), true));
    }

    #[test]
    fn services_that_akrobateo_cannot_serve_are_not_eligible() {
        for ineligible_service in [
            service("web").class("example.com/lb"),
            service("web").service_type("ClusterIP"),
            service("web").service_type("NodePort"),
            service("web").cluster_ips(&["None"]),
            service("web").cluster_ips(&[""]),
            service("web").terminating(),
        ] {
            assert!(!is_eligible(&ineligible_service.build(), true));
        }
    }

    #[test]
    fn service_without_a_class_is_not_eligible_if_default_class_is_false() {
        assert!(!is_eligible(&service("web").build(), false));
        assert!(is_eligible(&service("web").class("akrobateo.io/lb").build(), false));
    }
}

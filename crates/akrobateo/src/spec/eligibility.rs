//! Which Services are Akrobateo's. Pure.

use akrobateo_core::{FIELD_MANAGER, LOAD_BALANCER_CLASS};
use k8s_openapi::api::core::v1::Service;

/// Why a Service is not Akrobateo's business.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Ineligible {
    #[error("it is not of type LoadBalancer")]
    Type,
    #[error("its loadBalancerClass is {0}, another implementation's")]
    Class(String),
    #[error("it has no loadBalancerClass, and the operator serves those of class {LOAD_BALANCER_CLASS} only")]
    NoClass,
    #[error("it has no cluster IP")]
    Headless,
    #[error("it is being deleted")]
    Going,
}

/// Why this Service is not to be given addresses by us; `None` if it is.
pub(crate) fn why_not_eligible(service: &Service, default_class: bool) -> Option<Ineligible> {
    let spec = service.spec.as_ref().filter(|spec| spec.type_.as_deref() == Some("LoadBalancer"));
    let Some(spec) = spec else { return Some(Ineligible::Type) };
    match spec.load_balancer_class.as_deref() {
        None if !default_class => return Some(Ineligible::NoClass),
        Some(class) if class != LOAD_BALANCER_CLASS => return Some(Ineligible::Class(class.to_owned())),
        _ => (),
    }
    if spec.cluster_ip.as_deref().is_none_or(|ip| ip.is_empty() || ip == "None") {
        return Some(Ineligible::Headless);
    }
    service.metadata.deletion_timestamp.is_some().then_some(Ineligible::Going)
}

/// Whether this Service is to be given addresses by us.
pub(crate) fn is_eligible(service: &Service, default_class: bool) -> bool {
    why_not_eligible(service, default_class).is_none()
}

/// Whether the addresses in this Service's status were written by us: others' are not ours to clear.
pub(crate) fn is_status_ours(service: &Service) -> bool {
    service.metadata.managed_fields.iter().flatten().any(|entry| {
        entry.manager.as_deref() == Some(FIELD_MANAGER) && entry.subresource.as_deref() == Some("status")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::fixtures::service;

    #[test]
    fn a_load_balancer_without_a_class_or_of_our_class_is_wanted() {
        assert!(is_eligible(&service("web").build(), true));
        assert!(is_eligible(&service("web").class("akrobateo.io/lb").build(), true));
    }

    #[test]
    fn another_class_another_type_headless_and_deleted_ones_are_not() {
        for other in [
            service("web").class("example.com/lb"),
            service("web").kind("ClusterIP"),
            service("web").kind("NodePort"),
            service("web").cluster_ips(&["None"]),
            service("web").cluster_ips(&[""]),
            service("web").being_deleted(),
        ] {
            assert!(!is_eligible(&other.build(), true));
        }
    }

    #[test]
    fn where_we_are_not_the_default_a_service_must_ask_for_us() {
        assert!(!is_eligible(&service("web").build(), false));
        assert!(is_eligible(&service("web").class("akrobateo.io/lb").build(), false));
    }
}

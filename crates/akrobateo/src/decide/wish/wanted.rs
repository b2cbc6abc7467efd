//! Which Services are Akrobateo's. Pure.

use contract::{FIELD_MANAGER, LOAD_BALANCER_CLASS};
use k8s_openapi::api::core::v1::Service;

/// Whether this Service is to be given addresses by us.
pub(crate) fn is_wanted(service: &Service, default_class: bool) -> bool {
    let Some(spec) = &service.spec else { return false };
    let class = spec.load_balancer_class.as_deref();
    spec.type_.as_deref() == Some("LoadBalancer")
        && class.map_or(default_class, |class| class == LOAD_BALANCER_CLASS)
        && spec.cluster_ip.as_deref().is_some_and(|ip| !ip.is_empty() && ip != "None")
        && service.metadata.deletion_timestamp.is_none()
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
        assert!(is_wanted(&service("web").build(), true));
        assert!(is_wanted(&service("web").class("akrobateo.io/lb").build(), true));
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
            assert!(!is_wanted(&other.build(), true));
        }
    }

    #[test]
    fn where_we_are_not_the_default_a_service_must_ask_for_us() {
        assert!(!is_wanted(&service("web").build(), false));
        assert!(is_wanted(&service("web").class("akrobateo.io/lb").build(), false));
    }
}

//! The builders of objects for tests, and the configuration of proxies in tests. Pure.

pub(crate) use akrobateo_services::fixtures::*;

use super::proxy_config::{ProxyConfig, ProxyNamespace};

pub(crate) fn proxy_config() -> ProxyConfig {
    ProxyConfig {
        instance: INSTANCE.to_owned(),
        proxy_namespace: ProxyNamespace::SharedNamespace("akrobateo-proxies".to_owned()),
        former_proxy_namespaces: Vec::new(),
        image: "lb:test".to_owned(),
    }
}

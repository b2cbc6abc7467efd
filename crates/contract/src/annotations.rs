//! The annotations that a Service's author may set.

/// `VIP` or `Proxy`: the status's ipMode, which tells kube-proxy whether it may bypass the proxies.
pub const IP_MODE: &str = "akrobateo.io/ip-mode";

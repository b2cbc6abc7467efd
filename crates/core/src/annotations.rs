//! The annotations that people may set: on Services unless it says otherwise.

/// A label selector in kubectl's syntax: the nodes that may run proxies.
pub const NODE_SELECTOR: &str = "akrobateo.io/node-selector";
/// A JSON or YAML list of tolerations for the proxies.
pub const TOLERATIONS: &str = "akrobateo.io/tolerations";
/// `DaemonSet` or `Deployment`.
pub const WORKLOAD: &str = "akrobateo.io/workload";
/// How many proxies a Deployment has.
pub const REPLICAS: &str = "akrobateo.io/replicas";
/// Kinds of node addresses by preference, comma-separated.
pub const ADDRESS_TYPES: &str = "akrobateo.io/address-types";
/// `VIP` or `Proxy`: the status's ipMode, which tells kube-proxy whether it may bypass the proxies.
pub const IP_MODE: &str = "akrobateo.io/ip-mode";
/// `v1` or `v2`, with or without ports: the PROXY protocol towards backends.
pub const PROXY_PROTOCOL: &str = "akrobateo.io/proxy-protocol";
/// `kernel` or `userspace`.
pub const DATA_PATH: &str = "akrobateo.io/data-path";
/// The proxies' priority class.
pub const PRIORITY_CLASS: &str = "akrobateo.io/priority-class";

/// On a node: the addresses to publish in place of its own, comma-separated; for nodes behind 1:1 NAT.
pub const NODE_ADDRESS: &str = "akrobateo.io/address";

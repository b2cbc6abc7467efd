//! The annotations that users set on Services and nodes. Pure.

/// An annotation that users set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Annotation {
    /// The key of the annotation, for example `akrobateo.io/workload`.
    pub name: &'static str,
    /// The kind of object that carries the annotation: `Service` or `Node`.
    pub kind: &'static str,
    /// The allowed values and their effect. docs/reference.md contains this text.
    pub help: &'static str,
}

/// Defines a constant for each annotation key, and the table of all annotations. The help text is also the
/// constant's documentation.
macro_rules! annotations {
    ($($constant:ident: $name:literal, $kind:literal, $help:literal;)*) => {
        $(
            #[doc = $help]
            pub const $constant: &str = $name;
        )*

        /// All annotations, in the order of the reference.
        pub const ANNOTATIONS: &[Annotation] =
            &[$(Annotation { name: $constant, kind: $kind, help: $help }),*];
    };
}

annotations! {
    NODE_SELECTOR: "akrobateo.io/node-selector", "Service",
        "Label selector for the nodes that may serve the Service, in kubectl's syntax.";
    TOLERATIONS: "akrobateo.io/tolerations", "Service",
        "Tolerations of the proxy pods, as a JSON or YAML list.";
    WORKLOAD: "akrobateo.io/workload", "Service",
        "Programs that forward the Service: `Shared` (the node agents), or its own proxies in a `DaemonSet` or `Deployment`.";
    CLIENT_ADDRESS: "akrobateo.io/client-address", "Service",
        "The address that backends see as the client's address in shared mode: `keep` (the client's own address) or `masquerade` (an address of the node).";
    REPLICAS: "akrobateo.io/replicas", "Service",
        "Number of proxies of a Deployment, from 1 to 1000.";
    ADDRESS_TYPES: "akrobateo.io/address-types", "Service",
        "Types of node addresses to publish, comma-separated, in order of preference: `ExternalIP`, `InternalIP`.";
    IP_MODE: "akrobateo.io/ip-mode", "Service",
        "The `ipMode` in the status. With `VIP` kube-proxy may bypass the proxies; with `Proxy` kube-proxy does not bypass the proxies.";
    PROXY_PROTOCOL: "akrobateo.io/proxy-protocol", "Service",
        "Version of the PROXY protocol towards backends, `v1` or `v2`. With `v2:443,8443` only the TCP ports 443 and 8443 use the protocol.";
    DATA_PATH: "akrobateo.io/data-path", "Service",
        "Data path in which the proxies forward: `kernel` or `userspace`.";
    PRIORITY_CLASS: "akrobateo.io/priority-class", "Service",
        "Name of the priority class of the proxy pods.";
    NODE_ADDRESS: "akrobateo.io/address", "Node",
        "IP addresses to publish instead of the node's own addresses, comma-separated. Nodes behind 1:1 NAT \
        need this annotation. Invalid parts of the value are ignored. If the annotation has invalid parts, \
        the node's own addresses are published for each address family without a valid address in the \
        annotation.";
}

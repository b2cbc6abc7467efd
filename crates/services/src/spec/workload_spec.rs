//! The kind of workload that runs proxies, and its size. Pure.

/// The programs that forward a Service: the node agents, or the proxies of this workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkloadSpec {
    /// The node agents, which all Services share. The Service has no workload of its own.
    Shared,
    /// One proxy on each selected node.
    DaemonSet,
    /// This number of proxies, each on a different node.
    Deployment {
        /// The number of proxies.
        replicas: u16,
    },
}

/// The kind of a [`WorkloadSpec`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "PascalCase")]
pub enum WorkloadKind {
    /// The node agents, which all Services share.
    Shared,
    /// One proxy on each selected node.
    DaemonSet,
    /// The configured number of proxies, each on a different node.
    Deployment,
}

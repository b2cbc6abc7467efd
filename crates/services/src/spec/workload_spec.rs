//! The kind of workload that runs proxies, and its size. Pure.

/// The workload that runs a Service's proxies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkloadSpec {
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
    /// One proxy on each selected node.
    DaemonSet,
    /// The configured number of proxies, each on a different node.
    Deployment,
}

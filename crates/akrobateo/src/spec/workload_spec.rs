//! The kind of workload that runs proxies, and its size. Pure.

/// The workload that runs a Service's proxies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WorkloadSpec {
    /// One proxy on each selected node.
    DaemonSet,
    /// This number of proxies, each on a different node.
    Deployment { replicas: u16 },
}

/// The kind of a [`WorkloadSpec`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "PascalCase")]
pub(crate) enum WorkloadKind {
    /// One proxy on each selected node.
    DaemonSet,
    /// The configured number of proxies, each on a different node.
    Deployment,
}

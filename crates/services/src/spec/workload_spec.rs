//! The programs that forward a Service. Pure.

/// The programs that forward a Service: the node agents, or the Service's own proxies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkloadSpec {
    /// The node agents, which all Services share. The Service has no workload of its own.
    Shared,
    /// The proxies of this workload. These proxies forward only this Service.
    Dedicated(ProxyWorkload),
}

/// The workload that runs the proxies of one Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyWorkload {
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

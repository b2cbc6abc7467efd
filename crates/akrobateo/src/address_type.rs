//! The kinds of node addresses that can be published. Pure.

/// A kind of node address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "verbatim")]
pub(crate) enum AddressType {
    /// Reachable from outside the cluster.
    ExternalIP,
    /// The node's own.
    InternalIP,
}

impl AddressType {
    pub(crate) const ALL: [Self; 2] = [Self::ExternalIP, Self::InternalIP];

    /// As in a node's status.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::ExternalIP => "ExternalIP",
            Self::InternalIP => "InternalIP",
        }
    }
}

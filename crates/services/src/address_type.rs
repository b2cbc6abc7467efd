//! The types of node addresses that can be published. Pure.

/// A type of node address, as in a node's status
/// (<https://kubernetes.io/docs/reference/node/node-status/#addresses>).
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "verbatim")]
pub enum AddressType {
    /// An address that is reachable from outside the cluster.
    ExternalIP,
    /// An address of the node's own network interface.
    InternalIP,
}

impl AddressType {
    /// All types.
    pub const ALL: [Self; 2] = [Self::ExternalIP, Self::InternalIP];

    /// Returns the name of the type in a node's status.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ExternalIP => "ExternalIP",
            Self::InternalIP => "InternalIP",
        }
    }

    /// Parses the name of a type in a node's status.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|address_type| address_type.as_str() == text)
    }
}

//! The reasons why the data path cannot be changed. Pure.

use netfilter::netlink::NetlinkError;
use netfilter::nft::NftError;

/// The reason why the data path cannot be changed.
#[derive(Debug, thiserror::Error)]
pub enum DataPathError {
    /// The process lacks the capability `NET_ADMIN`.
    #[error(
        "not allowed to change the node's network: run as root with the capability NET_ADMIN in the node's network \
         namespace"
    )]
    NoNetAdmin,
    /// The kernel lacks a feature that the data path needs.
    #[error(
        "the node's kernel has no {name}: upgrade the kernel to Linux {linux_version} or newer, or set the annotation \
         akrobateo.io/data-path: userspace on each Service, whose proxies need no nftables"
    )]
    MissingFeature {
        /// The name of the feature.
        name: &'static str,
        /// The first version of Linux with this feature.
        linux_version: &'static str,
    },
    /// The kernel cannot read or change the tables.
    #[error(transparent)]
    Nftables(NftError),
    /// The conntrack entries of earlier rules cannot be deleted.
    #[error("cannot delete conntrack entries of earlier rules: {0}")]
    Conntrack(NetlinkError),
    /// The tunnel and the routes to other nodes cannot be changed.
    #[error("cannot change the tunnel and the routes to other nodes: {0}")]
    Tunnel(links::ClientError),
    /// Notifications of changes by other programs cannot be received.
    #[error("cannot watch the node's network: {0}")]
    Watch(links::SocketError),
    /// A thread of the agent cannot be started.
    #[error("cannot start the agent: {0}")]
    Thread(std::io::Error),
    /// The uplink does not exist.
    #[error("the node has no network interface {0}; set the uplink to the interface with the node's address")]
    NoUplink(String),
    /// The node has no address.
    #[error("the node has no address; give it at least one address that clients can reach")]
    NoAddress,
}

impl DataPathError {
    /// Returns the name of the step that failed, for metrics and alerts.
    #[must_use]
    pub const fn step(&self) -> &'static str {
        match self {
            Self::NoNetAdmin => "permissions",
            Self::MissingFeature { .. } => "kernel_features",
            Self::Nftables(_) => "nftables",
            Self::Conntrack(_) => "conntrack",
            Self::Tunnel(_) => "tunnel",
            Self::Watch(_) => "watch",
            Self::Thread(_) => "thread",
            Self::NoUplink(_) => "uplink",
            Self::NoAddress => "addresses",
        }
    }
}

impl From<NftError> for DataPathError {
    fn from(error: NftError) -> Self {
        match error {
            NftError::NoNetAdmin => Self::NoNetAdmin,
            _ => Self::Nftables(error),
        }
    }
}

impl From<NetlinkError> for DataPathError {
    fn from(error: NetlinkError) -> Self {
        NftError::from(error).into()
    }
}

impl From<links::ClientError> for DataPathError {
    fn from(error: links::ClientError) -> Self {
        if error.is_permission_denied() { Self::NoNetAdmin } else { Self::Tunnel(error) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_mentions_the_missing_feature_the_version_and_the_remedies() {
        let error = DataPathError::MissingFeature { name: "sets with counters", linux_version: "5.7" };
        assert_eq!(
            error.to_string(),
            "the node's kernel has no sets with counters: upgrade the kernel to Linux 5.7 or newer, or set the \
             annotation akrobateo.io/data-path: userspace on each Service, whose proxies need no nftables"
        );
    }
}

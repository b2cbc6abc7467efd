//! The reasons why a proxy cannot start, or must end. Pure.

use netfilter::netlink::NetlinkError;
use netfilter::nft::NftError;

use crate::forwarding_config::ConfigError;
use crate::ip_forwarding::ForwardingError;
use crate::kernel_version::MissingFeature;
use crate::probe::ProbeError;
use crate::userspace::error::UserspaceError;

/// The reason why a proxy cannot start, or must end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The arguments contradict each other.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// IP forwarding is off, or its state is unknown.
    #[error(transparent)]
    Forwarding(#[from] ForwardingError),
    /// The nftables rules cannot be installed.
    #[error(transparent)]
    Nft(#[from] NftError),
    /// The kernel cannot report changes of network interfaces and of their forwarding sysctls.
    #[error("cannot watch the pod's network interfaces over netlink: {0}")]
    WatchInterfaces(NetlinkError),
    /// The userspace data path cannot forward.
    #[error(transparent)]
    Userspace(#[from] UserspaceError),
    /// The probe's port cannot be opened.
    #[error(transparent)]
    Probe(#[from] ProbeError),
    /// The data path does not work, and the version of the kernel is older than the data path requires.
    #[error("{error}; {missing_feature}")]
    OldKernel {
        /// The error of the data path.
        error: Box<Self>,
        /// The feature that the kernel lacks.
        missing_feature: MissingFeature,
    },
    /// The runtime or its signal handlers cannot be set up.
    #[error("cannot start the process's runtime: {0}")]
    StartRuntime(#[from] std::io::Error),
}

impl Error {
    /// Adds `missing_feature` to the error if this feature may be the cause of the error.
    #[must_use]
    pub fn with_missing_feature(self, missing_feature: Option<MissingFeature>) -> Self {
        let may_be_caused_by_old_kernel = match &self {
            Self::Nft(error) => !matches!(error, NftError::NoNetAdmin | NftError::TransactionTooLarge(_)),
            Self::Userspace(_) | Self::WatchInterfaces(_) => true,
            _ => false,
        };
        match missing_feature {
            Some(missing_feature) if may_be_caused_by_old_kernel => {
                Self::OldKernel { error: Box::new(self), missing_feature }
            }
            _ => self,
        }
    }
}

#[cfg(test)]
mod tests {
    use akrobateo_core::DataPath;

    use super::*;
    use crate::kernel_version::KernelVersion;

    #[test]
    fn error_on_an_old_kernel_mentions_the_required_version() {
        let missing_feature =
            KernelVersion::parse("4.14").unwrap().find_missing_features(DataPath::Kernel).next();
        let error = Error::from(NftError::MissingFeature("nft_chain_nat".into()))
            .with_missing_feature(missing_feature);
        let message = error.to_string();
        assert!(message.contains("no nft_chain_nat") && message.contains("needs Linux 5.2"), "{message}");
        let error = Error::from(NftError::NoNetAdmin).with_missing_feature(missing_feature);
        assert_eq!(error.to_string(), NftError::NoNetAdmin.to_string());
    }
}

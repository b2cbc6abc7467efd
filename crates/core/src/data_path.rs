//! The place where a proxy forwards traffic: `kernel` or `userspace`. Pure.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// The termination grace period of a proxy that forwards in userspace. The proxy drains its connections during this
/// period. Kubernetes has the same default.
pub const USERSPACE_GRACE_PERIOD: Duration = Duration::from_secs(30);

/// The place where a proxy forwards traffic. The annotation `akrobateo.io/data-path` and the argument `--data-path`
/// have this type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum DataPath {
    /// The kernel forwards with nftables rules. The kernel path is the fastest, supports every protocol, and needs
    /// `NET_ADMIN`.
    #[default]
    Kernel,
    /// The proxy's own process forwards. The userspace path needs no capability, and supports the PROXY protocol.
    Userspace,
}

impl fmt::Display for DataPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kernel => "kernel",
            Self::Userspace => "userspace",
        })
    }
}

/// The error for a text that is not a [`DataPath`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a data path; expected kernel or userspace")]
pub struct ParseDataPathError(String);

impl FromStr for DataPath {
    type Err = ParseDataPathError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.trim() {
            "kernel" => Ok(Self::Kernel),
            "userspace" => Ok(Self::Userspace),
            _ => Err(ParseDataPathError(text.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn displayed_data_path_parses_to_the_same_value() {
        for data_path in [DataPath::Kernel, DataPath::Userspace] {
            assert_eq!(data_path.to_string().parse(), Ok(data_path));
        }
    }

    #[test]
    fn parse_error_mentions_the_unknown_data_path() {
        let error = "ebpf".parse::<DataPath>().unwrap_err().to_string();
        assert_eq!(error, "\"ebpf\" is not a data path; expected kernel or userspace");
    }
}

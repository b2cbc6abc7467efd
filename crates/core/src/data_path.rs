//! Where a proxy forwards: `kernel` or `userspace`.

use std::fmt;
use std::str::FromStr;

/// Where a proxy forwards: the value of the annotation, and of the argument.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum DataPath {
    /// By rules of nftables: fastest, for every protocol; needs `NET_ADMIN`.
    #[default]
    Kernel,
    /// In the proxy's own process: needs no capability, and can speak the PROXY protocol.
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

/// Why a text is not a [`DataPath`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a data path: allowed are kernel and userspace")]
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
    fn both_paths_are_read_back_and_others_refused() {
        for path in [DataPath::Kernel, DataPath::Userspace] {
            assert_eq!(path.to_string().parse(), Ok(path));
        }
        let error = "ebpf".parse::<DataPath>().unwrap_err().to_string();
        assert_eq!(error, "\"ebpf\" is not a data path: allowed are kernel and userspace");
    }
}

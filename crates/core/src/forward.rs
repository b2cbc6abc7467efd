//! One forwarded port, and its form as an argument: `tcp/80=10.96.3.7:80`. Pure.

use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::str::FromStr;

use crate::protocol::{ParseProtocolError, Protocol};

/// A rule of a proxy: the proxy forwards traffic from `port` to `target`, for clients of the target's address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Forward {
    /// The protocol of the traffic from the client and to the target.
    pub protocol: Protocol,
    /// The port that clients connect to.
    pub port: NonZeroU16,
    /// The target: a ClusterIP and a port of the Service.
    pub target: SocketAddr,
}

impl fmt::Display for Forward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { protocol, port, target } = self;
        write!(f, "{protocol}/{port}={target}")
    }
}

/// The error for a text that is not a [`Forward`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseForwardError {
    /// A `=` or `/` is missing.
    #[error(
        "{0:?} is not a forwarded port; expected PROTOCOL/PORT=ADDRESS:PORT, for example tcp/80=10.96.3.7:80"
    )]
    MissingSeparator(String),
    /// An unknown protocol.
    #[error(transparent)]
    UnknownProtocol(#[from] ParseProtocolError),
    /// A port that is not a number from 1 to 65535.
    #[error("{0:?} is not a port; expected a number from 1 to 65535")]
    InvalidPort(String),
    /// A target that is not an address with a port.
    #[error("{0:?} is not a target; expected ADDRESS:PORT, for example 10.96.3.7:80 or [fd96::7]:80")]
    InvalidTarget(String),
}

impl FromStr for Forward {
    type Err = ParseForwardError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let separator_error = || ParseForwardError::MissingSeparator(text.to_owned());
        let (frontend, target) = text.split_once('=').ok_or_else(separator_error)?;
        let (protocol, port) = frontend.split_once('/').ok_or_else(separator_error)?;
        let target_error = || ParseForwardError::InvalidTarget(target.to_owned());
        let forward = Self {
            protocol: protocol.parse()?,
            port: port.parse().map_err(|_| ParseForwardError::InvalidPort(port.to_owned()))?,
            target: target.parse().map_err(|_| target_error())?,
        };
        if forward.target.port() == 0 || forward.target.ip().is_unspecified() {
            return Err(target_error());
        }
        Ok(forward)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Parses texts that are nearly correct, and arbitrary texts.
        #[test]
        fn displayed_forward_parses_to_the_same_value(
            text in prop_oneof![
                "(tcp|UDP|sctp|x)?/?[0-9]{0,6}=?\\[?[0-9a-f:.]{0,12}\\]?:?[0-9]{0,6}",
                "(tcp|udp)/[1-9][0-9]{0,3}=(10\\.0\\.0\\.[0-9]|\\[fd00::[0-9a-f]\\]):[1-9][0-9]{0,3}",
                ".*",
            ],
        ) {
            if let Ok(forward) = text.parse::<Forward>() {
                prop_assert!(forward.target.port() != 0 && !forward.target.ip().is_unspecified());
                prop_assert_eq!(forward.to_string().parse(), Ok(forward));
            }
        }
    }

    #[test]
    fn forward_accepts_ipv6_targets_and_upper_case_protocols() {
        let forward: Forward = "udp/53=[fd96::a]:5353".parse().unwrap();
        assert_eq!(forward.protocol, Protocol::Udp);
        assert_eq!(forward.port.get(), 53);
        assert_eq!(forward.target, "[fd96::a]:5353".parse().unwrap());
        assert!("TCP/80=10.96.3.7:80".parse::<Forward>().is_ok());
    }

    #[test]
    fn parse_error_mentions_the_invalid_part_of_a_forward() {
        for (text, expected) in [
            ("80=10.0.0.1:80", "expected PROTOCOL/PORT"),
            ("tcp/80", "expected PROTOCOL/PORT"),
            ("icmp/80=10.0.0.1:80", "unknown protocol \"icmp\""),
            ("tcp/0=10.0.0.1:80", "\"0\" is not a port"),
            ("tcp/65536=10.0.0.1:80", "\"65536\" is not a port"),
            ("tcp/80=10.0.0.1", "\"10.0.0.1\" is not a target"),
            ("tcp/80=10.0.0.1:0", "target"),
            ("tcp/80=0.0.0.0:80", "target"),
            ("tcp/80=[::]:80", "target"),
            ("tcp/80=web:80", "\"web:80\" is not a target"),
        ] {
            let error = text.parse::<Forward>().unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}

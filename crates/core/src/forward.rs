//! One forwarded port, and its form as an argument: `tcp/80=10.96.3.7:80`.

use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::str::FromStr;

use crate::protocol::{ParseProtocolError, Protocol};

/// What arrives on `port` with `protocol` goes to `target`, for clients of the target's address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Forward {
    /// The protocol of both sides.
    pub protocol: Protocol,
    /// The port on which clients arrive.
    pub port: NonZeroU16,
    /// Where it goes: a ClusterIP and a port of the Service.
    pub target: SocketAddr,
}

impl fmt::Display for Forward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { protocol, port, target } = self;
        write!(f, "{protocol}/{port}={target}")
    }
}

/// Why a text is not a [`Forward`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseForwardError {
    /// No `=` or no `/` where one belongs.
    #[error("{0:?} is not of the form PROTOCOL/PORT=ADDRESS:PORT, for example tcp/80=10.96.3.7:80")]
    Form(String),
    /// An unknown protocol.
    #[error(transparent)]
    Protocol(#[from] ParseProtocolError),
    /// A port that is no number from 1 to 65535.
    #[error("port {0:?} is not a number from 1 to 65535")]
    Port(String),
    /// A target that is not an address with a port.
    #[error("target {0:?} is not an IP address with a port, as in 10.96.3.7:80 or [fd96::7]:80")]
    Target(String),
}

impl FromStr for Forward {
    type Err = ParseForwardError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let form = || ParseForwardError::Form(text.to_owned());
        let (listen, target) = text.split_once('=').ok_or_else(form)?;
        let (protocol, port) = listen.split_once('/').ok_or_else(form)?;
        let target_error = || ParseForwardError::Target(target.to_owned());
        let forward = Self {
            protocol: protocol.parse()?,
            port: port.parse().map_err(|_| ParseForwardError::Port(port.to_owned()))?,
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
        /// Texts that are nearly right, and any others.
        #[test]
        fn whatever_is_read_is_written_as_it_is_read(
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
    fn both_families_are_read() {
        let forward: Forward = "udp/53=[fd96::a]:5353".parse().unwrap();
        assert_eq!(forward.protocol, Protocol::Udp);
        assert_eq!(forward.port.get(), 53);
        assert_eq!(forward.target, "[fd96::a]:5353".parse().unwrap());
        assert!("TCP/80=10.96.3.7:80".parse::<Forward>().is_ok());
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, wrong) in [
            ("80=10.0.0.1:80", "form"),
            ("tcp/80", "form"),
            ("icmp/80=10.0.0.1:80", "\"icmp\" is none of"),
            ("tcp/0=10.0.0.1:80", "port \"0\""),
            ("tcp/65536=10.0.0.1:80", "port \"65536\""),
            ("tcp/80=10.0.0.1", "target \"10.0.0.1\""),
            ("tcp/80=10.0.0.1:0", "target"),
            ("tcp/80=0.0.0.0:80", "target"),
            ("tcp/80=[::]:80", "target"),
            ("tcp/80=web:80", "target \"web:80\""),
        ] {
            let error = text.parse::<Forward>().unwrap_err().to_string();
            assert!(error.contains(wrong), "{text}: {error}");
        }
    }
}

//! The target of a request, and its format as an argument: `tcp/172.29.0.11/80`. Pure.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use akrobateo_core::Protocol;

/// The protocol, address and port that a request goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Target {
    /// The protocol; TCP or UDP.
    pub protocol: Protocol,
    /// The address.
    pub host: IpAddr,
    /// The port.
    pub port: u16,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { protocol, host, port } = self;
        write!(f, "{protocol}/{host}/{port}")
    }
}

/// The error for a text that is not a [`Target`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a target; expected tcp/ADDRESS/PORT or udp/ADDRESS/PORT")]
pub struct ParseTargetError(String);

impl FromStr for Target {
    type Err = ParseTargetError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text).ok_or_else(|| ParseTargetError(text.to_owned()))
    }
}

fn parse(text: &str) -> Option<Target> {
    let mut parts = text.split('/');
    let protocol = parts.next()?.parse().ok().filter(|protocol| *protocol != Protocol::Sctp)?;
    let (host, port) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    parts.next().is_none().then_some(Target { protocol, host, port })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn displaying_a_parsed_target_returns_the_same_text() {
        for text in ["tcp/172.29.0.11/80", "udp/fd29::11/65535"] {
            assert_eq!(text.parse::<Target>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn parser_rejects_invalid_targets() {
        for text in ["tcp/80", "sctp/172.29.0.11/80", "tcp/web/80", "tcp/172.29.0.11/http", "tcp/::1/80/"] {
            assert!(text.parse::<Target>().is_err(), "{text}");
        }
    }
}

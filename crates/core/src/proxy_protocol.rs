//! The PROXY protocol of a Service and the ports that use it: `v1`, `v2`, `v2:443,8443`. Pure.

use std::collections::BTreeSet;
use std::fmt;
use std::num::NonZeroU16;
use std::str::FromStr;

/// A version of the PROXY protocol, as HAProxy's `proxy-protocol.txt` defines it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ProxyVersion {
    /// A line of text before the client's data.
    V1,
    /// A binary header before the client's data.
    V2,
}

impl fmt::Display for ProxyVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V1 => "v1",
            Self::V2 => "v2",
        })
    }
}

/// The PROXY protocol towards the backends of a Service: the value of the annotation and of the argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyProtocol {
    /// The version on all ports that use the protocol.
    pub version: ProxyVersion,
    /// The TCP ports that use the protocol, or `None` for all TCP ports.
    ports: Option<BTreeSet<NonZeroU16>>,
}

impl ProxyProtocol {
    /// Returns a value that enables the PROXY protocol on all TCP ports.
    #[must_use]
    pub const fn for_all_ports(version: ProxyVersion) -> Self {
        Self { version, ports: None }
    }

    /// Returns the version on this TCP port, if the port uses the protocol.
    #[must_use]
    pub fn version_for_port(&self, port: NonZeroU16) -> Option<ProxyVersion> {
        self.ports.as_ref().is_none_or(|ports| ports.contains(&port)).then_some(self.version)
    }

    /// Returns the listed TCP ports, in ascending order. The result is empty if all TCP ports use the protocol.
    pub fn listed_ports(&self) -> impl Iterator<Item = NonZeroU16> {
        self.ports.iter().flatten().copied()
    }
}

impl fmt::Display for ProxyProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.version)?;
        let mut separator = ':';
        for port in self.listed_ports() {
            write!(f, "{separator}{port}")?;
            separator = ',';
        }
        Ok(())
    }
}

/// The error for a text that is not a [`ProxyProtocol`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseProxyProtocolError {
    /// An unknown version.
    #[error(
        "{0:?} is not a PROXY protocol; expected v1 or v2, optionally with TCP ports, for example v2:443,8443"
    )]
    UnknownVersion(String),
    /// A port that is not a number from 1 to 65535.
    #[error("{port:?} in {text:?} is not a port; expected numbers from 1 to 65535, for example v2:443,8443")]
    InvalidPort {
        /// The invalid port.
        port: String,
        /// The whole text.
        text: String,
    },
}

impl FromStr for ProxyProtocol {
    type Err = ParseProxyProtocolError;

    /// Ignores spaces around the parts, because people write the annotation by hand.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (version, ports) = match text.split_once(':') {
            Some((version, ports)) => (version, Some(ports)),
            None => (text, None),
        };
        let version = match version.trim() {
            "v1" => ProxyVersion::V1,
            "v2" => ProxyVersion::V2,
            _ => return Err(ParseProxyProtocolError::UnknownVersion(text.to_owned())),
        };
        let parse_port = |port: &str| {
            port.trim().parse().map_err(|_| ParseProxyProtocolError::InvalidPort {
                port: port.trim().to_owned(),
                text: text.to_owned(),
            })
        };
        let ports = ports.map(|ports| ports.split(',').map(parse_port).collect()).transpose()?;
        Ok(Self { version, ports })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Generates any valid value.
    fn any_proxy_protocol() -> impl Strategy<Value = ProxyProtocol> {
        let version = prop::sample::select(&[ProxyVersion::V1, ProxyVersion::V2][..]);
        let ports = prop::option::of(prop::collection::btree_set(any::<NonZeroU16>(), 1..8));
        (version, ports).prop_map(|(version, ports)| ProxyProtocol { version, ports })
    }

    proptest! {
        #[test]
        fn displayed_proxy_protocol_parses_to_the_same_value(protocol in any_proxy_protocol()) {
            prop_assert_eq!(protocol.to_string().parse(), Ok(protocol));
        }

        #[test]
        fn parse_error_contains_an_example(text in "(v[0-3])?[ :,0-9a-z]{0,12}") {
            match text.parse::<ProxyProtocol>() {
                Ok(protocol) => prop_assert_eq!(protocol.to_string().parse(), Ok(protocol)),
                Err(error) => prop_assert!(error.to_string().contains("v2:443,8443")),
            }
        }
    }

    #[test]
    fn proxy_protocol_applies_to_all_ports_or_to_the_listed_ports() {
        let port = |number| NonZeroU16::new(number).unwrap();
        let protocol_of_all_ports: ProxyProtocol = "v1".parse().unwrap();
        assert_eq!(protocol_of_all_ports, ProxyProtocol::for_all_ports(ProxyVersion::V1));
        assert_eq!(protocol_of_all_ports.version_for_port(port(80)), Some(ProxyVersion::V1));
        let protocol_of_listed_ports: ProxyProtocol = " v2: 8443, 443,443 ".parse().unwrap();
        assert_eq!(protocol_of_listed_ports.to_string(), "v2:443,8443");
        assert_eq!(
            [443, 8443, 80].map(|number| protocol_of_listed_ports.version_for_port(port(number)).is_some()),
            [true, true, false]
        );
    }

    #[test]
    fn parse_error_mentions_the_invalid_part_of_a_proxy_protocol() {
        for (text, expected) in [
            ("", "\"\" is not a PROXY protocol"),
            ("true", "\"true\" is not a PROXY protocol"),
            ("V2", "expected v1 or v2"),
            ("v3:443", "\"v3:443\" is not"),
            ("443", "is not a PROXY protocol"),
            ("v2:", "\"\" in \"v2:\" is not a port"),
            ("v2:443,", "\"\" in \"v2:443,\""),
            ("v2:0", "\"0\" in"),
            ("v2:443,https", "\"https\" in"),
            ("v2:65536", "\"65536\" in"),
        ] {
            let error = text.parse::<ProxyProtocol>().unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}

//! Which backends are told the client's address, and how: `v1`, `v2`, `v2:443,8443`.

use std::collections::BTreeSet;
use std::fmt;
use std::num::NonZeroU16;
use std::str::FromStr;

/// A version of the PROXY protocol, as HAProxy's `proxy-protocol.txt` defines them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ProxyVersion {
    /// One line of text.
    V1,
    /// Binary.
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

/// The PROXY protocol towards the backends of a Service: the value of the annotation, and of the argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyProtocol {
    /// The version, the same for all ports that have it.
    pub version: ProxyVersion,
    /// The TCP ports that have it; `None` for all.
    ports: Option<BTreeSet<NonZeroU16>>,
}

impl ProxyProtocol {
    /// The version for every TCP port.
    #[must_use]
    pub const fn everywhere(version: ProxyVersion) -> Self {
        Self { version, ports: None }
    }

    /// The version with which connections to this TCP port are announced, if they are.
    #[must_use]
    pub fn of(&self, port: NonZeroU16) -> Option<ProxyVersion> {
        self.ports.as_ref().is_none_or(|ports| ports.contains(&port)).then_some(self.version)
    }

    /// The TCP ports that were named, in order; none where all are meant.
    pub fn named_ports(&self) -> impl Iterator<Item = NonZeroU16> {
        self.ports.iter().flatten().copied()
    }
}

impl fmt::Display for ProxyProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.version)?;
        let mut before = ':';
        for port in self.named_ports() {
            write!(f, "{before}{port}")?;
            before = ',';
        }
        Ok(())
    }
}

/// Why a text is not a [`ProxyProtocol`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseProxyProtocolError {
    /// A version that does not exist.
    #[error(
        "{0:?} is not a PROXY protocol: allowed are v1 and v2, for all TCP ports, or with some, as in v2:443,8443"
    )]
    Version(String),
    /// A port that is no number from 1 to 65535.
    #[error("port {port:?} in {text:?} is not a number from 1 to 65535; ports are listed as in v2:443,8443")]
    Port {
        /// What was meant to be a port.
        port: String,
        /// All of it.
        text: String,
    },
}

impl FromStr for ProxyProtocol {
    type Err = ParseProxyProtocolError;

    /// Spaces around the parts do not matter, since people write the annotation by hand.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (version, ports) = match text.split_once(':') {
            Some((version, ports)) => (version, Some(ports)),
            None => (text, None),
        };
        let version = match version.trim() {
            "v1" => ProxyVersion::V1,
            "v2" => ProxyVersion::V2,
            _ => return Err(ParseProxyProtocolError::Version(text.to_owned())),
        };
        let number = |port: &str| {
            port.trim().parse().map_err(|_| ParseProxyProtocolError::Port {
                port: port.trim().to_owned(),
                text: text.to_owned(),
            })
        };
        let ports = ports.map(|ports| ports.split(',').map(number).collect()).transpose()?;
        Ok(Self { version, ports })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Any value that a Service can ask for.
    fn any_proxy_protocol() -> impl Strategy<Value = ProxyProtocol> {
        let version = prop::sample::select(&[ProxyVersion::V1, ProxyVersion::V2][..]);
        let ports = prop::option::of(prop::collection::btree_set(any::<NonZeroU16>(), 1..8));
        (version, ports).prop_map(|(version, ports)| ProxyProtocol { version, ports })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(protocol in any_proxy_protocol()) {
            prop_assert_eq!(protocol.to_string().parse(), Ok(protocol));
        }

        #[test]
        fn any_text_is_read_or_refused_with_what_is_allowed(text in "(v[0-3])?[ :,0-9a-z]{0,12}") {
            match text.parse::<ProxyProtocol>() {
                Ok(protocol) => prop_assert_eq!(protocol.to_string().parse(), Ok(protocol)),
                Err(error) => prop_assert!(error.to_string().contains("v2:443,8443")),
            }
        }
    }

    #[test]
    fn without_ports_every_port_has_it_and_with_ports_these_alone() {
        let port = |number| NonZeroU16::new(number).unwrap();
        let all: ProxyProtocol = "v1".parse().unwrap();
        assert_eq!(all, ProxyProtocol::everywhere(ProxyVersion::V1));
        assert_eq!(all.of(port(80)), Some(ProxyVersion::V1));
        let some: ProxyProtocol = " v2: 8443, 443,443 ".parse().unwrap();
        assert_eq!(some.to_string(), "v2:443,8443");
        assert_eq!([443, 8443, 80].map(|at| some.of(port(at)).is_some()), [true, true, false]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, wrong) in [
            ("", "\"\" is not a PROXY protocol"),
            ("true", "\"true\" is not a PROXY protocol"),
            ("V2", "allowed are v1 and v2"),
            ("v3:443", "\"v3:443\" is not"),
            ("443", "is not a PROXY protocol"),
            ("v2:", "port \"\" in \"v2:\""),
            ("v2:443,", "port \"\""),
            ("v2:0", "port \"0\""),
            ("v2:443,https", "port \"https\""),
            ("v2:65536", "port \"65536\""),
        ] {
            let error = text.parse::<ProxyProtocol>().unwrap_err().to_string();
            assert!(error.contains(wrong), "{text}: {error}");
        }
    }
}

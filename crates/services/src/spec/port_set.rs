//! Parses a set of ports from text: numbers and ranges, with a protocol. Pure.

use std::ops::RangeInclusive;
use std::str::FromStr;

use akrobateo_core::{HostPort, Protocol};

/// A set of ports. As text, the set is a comma-separated list of ports and ranges, for example
/// `22,tcp/2379-2380,udp/8472`. The default protocol is TCP.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortSet(Vec<(Protocol, RangeInclusive<u16>)>);

impl PortSet {
    /// Returns true if the port is in the set.
    #[must_use]
    pub fn contains(&self, HostPort { protocol, port }: HostPort) -> bool {
        self.0.iter().any(|(range_protocol, range)| *range_protocol == protocol && range.contains(&port))
    }
}

impl FromStr for PortSet {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let error = |item| {
            format!(
                "{item:?} is not a port; expected a port from 1 to 65535 or a range such as 2379-2380, after tcp/ (the \
                 default), udp/ or sctp/, for example udp/8472"
            )
        };
        let parse = |item| parse_ports(item).ok_or_else(|| error(item));
        text.split(',').map(parse).collect::<Result<_, _>>().map(Self)
    }
}

fn parse_ports(text: &str) -> Option<(Protocol, RangeInclusive<u16>)> {
    let (protocol, ports) = match text.trim().split_once('/') {
        Some((protocol, ports)) => (protocol.trim().parse().ok()?, ports),
        None => (Protocol::Tcp, text),
    };
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    let (first, last): (u16, u16) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
    (1..=last).contains(&first).then_some((protocol, first..=last))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contains(set: &str, protocol: Protocol, port: u16) -> bool {
        set.parse::<PortSet>().unwrap().contains(HostPort { protocol, port })
    }

    #[test]
    fn port_without_a_protocol_is_a_tcp_port() {
        assert!(contains("22", Protocol::Tcp, 22));
        assert!(!contains("22", Protocol::Udp, 22));
        assert!(contains("tcp/22", Protocol::Tcp, 22));
    }

    #[test]
    fn protocol_applies_only_to_the_port_or_range_after_it() {
        let set = "22, udp/51820-51821 ,SCTP/90,23";
        assert!(contains(set, Protocol::Udp, 51_820) && contains(set, Protocol::Udp, 51_821));
        assert!(!contains(set, Protocol::Tcp, 51_820));
        assert!(contains(set, Protocol::Sctp, 90));
        assert!(contains(set, Protocol::Tcp, 23) && !contains(set, Protocol::Sctp, 23));
    }

    #[test]
    fn error_mentions_the_invalid_port_and_the_expected_form() {
        for text in ["0", "65536", "9-3", "ssh", "icmp/1", "udp/", "udp/tcp/1", "/22", "22,,23"] {
            let error = text.parse::<PortSet>().unwrap_err();
            assert!(error.contains("udp/ or sctp/") && error.contains("1 to 65535"), "{text}: {error}");
        }
        assert_eq!("".parse(), Ok(PortSet::default()));
    }
}

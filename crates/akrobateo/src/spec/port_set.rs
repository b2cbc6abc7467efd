//! A set of TCP ports as text: numbers and ranges. Pure.

use std::fmt;
use std::str::FromStr;

use akrobateo_core::{HostPort, Protocol};

/// A set of TCP ports: numbers and ranges, comma-separated, for example `22,2379-2380`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PortSet(Vec<(u16, u16)>);

impl PortSet {
    /// Returns true if the port is a TCP port in the set.
    pub(crate) fn contains(&self, HostPort { protocol, port }: HostPort) -> bool {
        protocol == Protocol::Tcp && self.0.iter().any(|&(first, last)| (first..=last).contains(&port))
    }
}

impl FromStr for PortSet {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let error = |part| {
            format!(
                "{part:?} is not a port; expected a port from 1 to 65535, or a range of ports such as 2379-2380"
            )
        };
        let parse = |part| parse_range(part).ok_or_else(|| error(part));
        text.split(',').map(parse).collect::<Result<_, _>>().map(Self)
    }
}

fn parse_range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
    (1..=last).contains(&first).then_some((first, last))
}

impl fmt::Display for PortSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (first, last)) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "," };
            let range = if first == last { first.to_string() } else { format!("{first}-{last}") };
            write!(f, "{separator}{range}")?;
        }
        Ok(())
    }
}

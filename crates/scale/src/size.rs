//! The size of a measured cluster. Pure.

use std::fmt;
use std::str::FromStr;

/// The number of Services and of nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size {
    /// The number of Services.
    pub(crate) services: usize,
    /// The number of nodes.
    pub(crate) nodes: usize,
}

/// The limits of the address plan in `objects`.
const MAX_SERVICES: usize = 5_000;
const MAX_NODES: usize = 1_000;

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.services, self.nodes)
    }
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (services, nodes) = text.split_once('x')?;
            Some(Self { services: services.parse().ok()?, nodes: nodes.parse().ok()? })
        };
        let is_valid = |size: &Self| {
            (1..=MAX_SERVICES).contains(&size.services) && (2..=MAX_NODES).contains(&size.nodes)
        };
        parse().filter(is_valid).ok_or_else(|| {
            format!(
                "{text:?} is not a size; expected SERVICESxNODES with at most {MAX_SERVICES} Services and 2 to \
                 {MAX_NODES} nodes, for example 1000x100"
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn size_has_services_and_nodes() {
        let size: Size = "1000x100".parse().unwrap();
        assert_eq!((size.services, size.nodes, size.to_string()), (1000, 100, "1000x100".to_owned()));
        for text in ["", "1000", "0x10", "10x1", "10x1001", "5001x10", "axb"] {
            assert!(text.parse::<Size>().unwrap_err().contains("SERVICESxNODES"), "{text}");
        }
    }
}

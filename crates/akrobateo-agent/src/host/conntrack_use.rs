//! The use of the conntrack table. Does I/O.

use std::{fs, io};

use super::error::HostError;

const CONNTRACK_COUNT_PATH: &str = "/proc/sys/net/netfilter/nf_conntrack_count";
const CONNTRACK_MAX_PATH: &str = "/proc/sys/net/netfilter/nf_conntrack_max";

/// The use of the conntrack table of the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConntrackUse {
    /// The number of entries.
    pub count: u32,
    /// The maximum number of entries.
    pub max: u32,
}

impl ConntrackUse {
    /// Reads both numbers in the network namespace of the calling thread.
    pub fn read() -> Result<Self, HostError> {
        Ok(Self { count: read_number(CONNTRACK_COUNT_PATH)?, max: read_number(CONNTRACK_MAX_PATH)? })
    }
}

fn read_number(path: &'static str) -> Result<u32, HostError> {
    let text = fs::read_to_string(path);
    let number = text.and_then(|text| text.trim().parse().map_err(io::Error::other));
    number.map_err(|error| HostError::ConntrackUnreadable { path, error })
}

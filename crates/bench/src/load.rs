//! The kinds of load. Pure.

use std::str::FromStr;

use akrobateo_core::Protocol;

/// A kind of load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Load {
    /// Connections with one request each.
    Connections,
    /// Bytes from clients to the backend.
    Upload,
    /// Bytes from the backend to clients.
    Download,
    /// UDP packets in both directions.
    Udp,
    /// Requests on open connections.
    Requests,
    /// Sequential connections, on one processor.
    SingleConnection,
    /// Sequential exchanges of a datagram and its reply, on one processor.
    SingleDatagram,
}

impl Load {
    /// All kinds of load, in the order in which they are measured.
    pub(crate) const ALL: [Self; 7] = [
        Self::Connections,
        Self::Upload,
        Self::Download,
        Self::Udp,
        Self::Requests,
        Self::SingleConnection,
        Self::SingleDatagram,
    ];

    /// The name on the command line and in the results.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Connections => "conn",
            Self::Upload => "up",
            Self::Download => "down",
            Self::Udp => "udp",
            Self::Requests => "requests",
            Self::SingleConnection => "single-conn",
            Self::SingleDatagram => "single-udp",
        }
    }

    /// The number of concurrent clients.
    pub(crate) const fn clients(self) -> usize {
        match self {
            Self::Connections => 8,
            Self::Upload | Self::Download | Self::Requests => 4,
            Self::Udp => 2,
            Self::SingleConnection | Self::SingleDatagram => 1,
        }
    }

    /// The protocol of the packets.
    pub(crate) const fn protocol(self) -> Protocol {
        match self {
            Self::Udp | Self::SingleDatagram => Protocol::Udp,
            _ => Protocol::Tcp,
        }
    }

    /// Returns true if the client and the backend run on the same processor. Under a load on one processor, an exchange
    /// takes as long as its CPU time.
    pub(crate) const fn uses_one_processor(self) -> bool {
        matches!(self, Self::SingleConnection | Self::SingleDatagram)
    }
}

impl FromStr for Load {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let names = Self::ALL.map(Self::name).join(", ");
        let load = Self::ALL.into_iter().find(|load| load.name() == text);
        load.ok_or_else(|| format!("unknown measurement {text:?}, expected one of {names}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_parses_to_its_load_and_errors_list_the_names() {
        for load in Load::ALL {
            assert_eq!(load.name().parse(), Ok(load));
        }
        assert!("tcp".parse::<Load>().unwrap_err().contains("conn, up"));
    }
}

//! Stores the open connections, and selects the connection that a new connection replaces. Pure.

use std::collections::VecDeque;
use std::net::IpAddr;

/// The maximum number of connections that are open at the same time. Every pod of the cluster can connect, and each
/// connection needs memory.
pub(crate) const MAX_CONNECTIONS: usize = 64;
/// The maximum number of connections of one source address. Neither the kubelet nor Prometheus needs more than three
/// connections.
pub(crate) const MAX_CONNECTIONS_PER_SOURCE: usize = 8;

/// An open connection. Dropping `handle` closes the connection.
#[derive(Debug)]
struct OpenConnection<T> {
    id: u64,
    source_address: IpAddr,
    handle: T,
}

/// The open connections, the oldest first.
#[derive(Debug)]
pub(crate) struct OpenConnections<T> {
    connections: VecDeque<OpenConnection<T>>,
    next_id: u64,
}

impl<T> OpenConnections<T> {
    pub(crate) const fn new() -> Self {
        Self { connections: VecDeque::new(), next_id: 0 }
    }

    /// Adds a connection. Returns the ID of the new connection, and the handle of the connection that the new
    /// connection replaces.
    ///
    /// A new connection at a limit replaces the oldest connection. A probe is answered within milliseconds, so the
    /// oldest connection is usually silent. The new connection may belong to the kubelet.
    pub(crate) fn add(&mut self, source_address: IpAddr, handle: T) -> (u64, Option<T>) {
        let evicted_connection =
            self.find_connection_to_evict(source_address).and_then(|index| self.connections.remove(index));
        let id = self.next_id;
        self.next_id += 1;
        self.connections.push_back(OpenConnection { id, source_address, handle });
        (id, evicted_connection.map(|connection| connection.handle))
    }

    /// Removes a connection that has ended.
    pub(crate) fn remove(&mut self, id: u64) {
        if let Ok(index) = self.connections.binary_search_by_key(&id, |connection| connection.id) {
            self.connections.remove(index);
        }
    }

    /// Returns the index of the connection that a new connection from `source_address` replaces.
    fn find_connection_to_evict(&self, source_address: IpAddr) -> Option<usize> {
        let mut connections_of_source = self
            .connections
            .iter()
            .enumerate()
            .filter(|(_, connection)| connection.source_address == source_address);
        let oldest_of_source = connections_of_source.next().map(|(index, _)| index);
        if 1 + connections_of_source.count() >= MAX_CONNECTIONS_PER_SOURCE {
            return oldest_of_source;
        }
        (self.connections.len() >= MAX_CONNECTIONS).then_some(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source_address(number: u8) -> IpAddr {
        [10, 244, 0, number].into()
    }

    #[test]
    fn new_connection_at_the_limit_per_source_replaces_the_oldest_connection_of_that_source() {
        let mut open_connections = OpenConnections::new();
        assert_eq!(open_connections.add(source_address(0), "other").1, None);
        for _ in 0..MAX_CONNECTIONS_PER_SOURCE {
            assert_eq!(open_connections.add(source_address(1), "silent").1, None);
        }
        assert_eq!(open_connections.add(source_address(2), "kubelet").1, None);
        for _ in 0..200 {
            assert_eq!(open_connections.add(source_address(1), "silent").1, Some("silent"));
        }
        assert_eq!(open_connections.connections.len(), 2 + MAX_CONNECTIONS_PER_SOURCE);
    }

    #[test]
    fn new_connection_at_the_total_limit_replaces_the_oldest_connection() {
        let mut open_connections = OpenConnections::new();
        for number in 0..MAX_CONNECTIONS {
            let source_address = source_address(u8::try_from(number / MAX_CONNECTIONS_PER_SOURCE).unwrap());
            assert_eq!(open_connections.add(source_address, number), (number as u64, None));
        }
        assert_eq!(open_connections.add(source_address(200), 64).1, Some(0));
        assert_eq!(open_connections.add(source_address(201), 65).1, Some(1));
    }

    #[test]
    fn new_connection_takes_the_place_of_an_ended_connection() {
        let mut open_connections = OpenConnections::new();
        let ids: Vec<_> = (0..MAX_CONNECTIONS_PER_SOURCE)
            .map(|number| open_connections.add(source_address(1), number).0)
            .collect();
        open_connections.remove(ids[1]);
        open_connections.remove(ids[1]);
        let replaced_connections =
            [100, 101, 102].map(|number| open_connections.add(source_address(1), number).1);
        assert_eq!(replaced_connections, [None, Some(0), Some(2)]);
    }
}

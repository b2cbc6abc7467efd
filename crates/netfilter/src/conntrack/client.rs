//! The client of the kernel's conntrack table: reads statistics and deletes stale entries. Does I/O.

use rustix::io::Errno;

use super::entry::{self, Flow};
use super::statistics::Statistics;
use crate::netlink::{Attr, Messages, NetlinkError, Protocol, Socket, message};

/// Netlink message types. The upper byte is the subsystem `NFNL_SUBSYS_CTNETLINK` (linux/netfilter/nfnetlink.h), and the
/// lower byte is a message of enum `cntl_msg_types` (`linux/netfilter/nfnetlink_conntrack.h`).
const GET_ENTRIES: u16 = 1 << 8 | 1;
const DELETE_ENTRY: u16 = 1 << 8 | 2;
const GET_CPU_STATISTICS: u16 = 1 << 8 | 4;
const GET_STATISTICS: u16 = 1 << 8 | 5;
/// The length of struct `nfgenmsg` (linux/netfilter/nfnetlink.h).
const HEADER_LEN: usize = 4;

/// A client of the conntrack table of one network namespace.
#[derive(Debug)]
pub struct Conntrack {
    dump_socket: Socket,
    delete_socket: Socket,
}

impl Conntrack {
    /// Opens a client in this thread's network namespace.
    pub fn open() -> Result<Self, NetlinkError> {
        let open = || Socket::open(Protocol::Netfilter);
        Ok(Self { dump_socket: open()?, delete_socket: open()? })
    }

    /// Reads the statistics.
    pub fn statistics(&self) -> Result<Statistics, NetlinkError> {
        let mut statistics = Statistics::default();
        let request = |kind, flags| Messages::single(kind, flags, &[0; HEADER_LEN], |_| ());
        self.dump_socket.request(&request(GET_CPU_STATISTICS, message::DUMP), |cpu_answer| {
            statistics.add_cpu_counters(cpu_answer.attrs(HEADER_LEN));
        })?;
        self.dump_socket.request(&request(GET_STATISTICS, message::ACK), |answer| {
            statistics.set_global_values(answer.attrs(HEADER_LEN));
        })?;
        Ok(statistics)
    }

    /// Deletes each entry for whose flow `is_stale` returns true. Returns the number of deleted entries.
    ///
    /// Deletes the entries one by one, because kernels before 6.12 cannot filter a deletion. Some of these kernels
    /// would delete all entries instead.
    pub fn delete_stale_entries(&self, is_stale: impl Fn(&Flow) -> bool) -> Result<usize, NetlinkError> {
        let dump = Messages::single(GET_ENTRIES, message::DUMP, &[0; HEADER_LEN], |_| ());
        let mut result = Ok(0);
        self.dump_socket.request(&dump, |entry| {
            let attrs = entry.attrs(HEADER_LEN);
            if let Ok(deleted_count) = &mut result
                && Flow::parse(attrs).is_some_and(|flow| is_stale(&flow))
            {
                match self.delete(entry.payload, attrs) {
                    Ok(was_deleted) => *deleted_count += usize::from(was_deleted),
                    Err(error) => result = Err(error),
                }
            }
        })?;
        result
    }

    /// Deletes one entry. Returns false if the entry no longer existed.
    fn delete(&self, payload: &[u8], attrs: &[u8]) -> Result<bool, NetlinkError> {
        // If the request had no tuple, the kernel would delete all entries.
        let (Some(tuple), Some(id)) =
            (Attr::find(attrs, entry::TUPLE_ORIGINAL), Attr::find(attrs, entry::ENTRY_ID))
        else {
            return Ok(false);
        };
        let family = payload.first().copied().unwrap_or(0);
        let request = Messages::single(DELETE_ENTRY, message::ACK, &[family, 0, 0, 0], |attrs| {
            attrs.push_nested(entry::TUPLE_ORIGINAL, |attrs| attrs.0.extend_from_slice(tuple));
            attrs.push_bytes(entry::ENTRY_ID, id);
        });
        match self.delete_socket.request(&request, |_| ()) {
            Ok(()) => Ok(true),
            Err(NetlinkError::Rejected { errno: Errno::NOENT, .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

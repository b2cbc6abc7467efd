//! The client of the kernel's conntrack table: reads statistics and deletes stale entries. Does I/O.

use rustix::io::Errno;

use super::abi;
use super::entry::{Entry, Flow};
use super::filter::EntryFilter;
use super::statistics::Statistics;
use crate::netlink::{Attr, Messages, NetlinkError, Protocol, Socket, message};

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
        let request = |kind, flags| Messages::single(kind, flags, &[0; abi::HEADER_LENGTH], |_| ());
        self.dump_socket.request(&request(abi::GET_CPU_STATISTICS, message::NLM_F_DUMP), |cpu| {
            statistics.add_cpu_counters(cpu.attrs(abi::HEADER_LENGTH));
        })?;
        self.dump_socket.request(&request(abi::GET_STATISTICS, message::NLM_F_ACK), |global| {
            statistics.set_global_values(global.attrs(abi::HEADER_LENGTH));
        })?;
        Ok(statistics)
    }

    /// Deletes each entry for whose flow `is_stale` returns true. Returns the number of deleted entries.
    ///
    /// Deletes the entries one by one, because kernels before 6.12 cannot filter a deletion. Some of these kernels
    /// would delete all entries instead.
    pub fn delete_stale_entries(&self, is_stale: impl Fn(&Flow) -> bool) -> Result<usize, NetlinkError> {
        let dump_request =
            Messages::single(abi::GET_ENTRIES, message::NLM_F_DUMP, &[0; abi::HEADER_LENGTH], |_| ());
        self.delete_listed_entries(&dump_request, |entry| is_stale(&entry.flow))
    }

    /// Deletes the entries that match the filter. Returns the number of deleted entries.
    ///
    /// The kernel applies most of the filter, so the kernel lists few entries even if the conntrack table is large; see
    /// [`EntryFilter::encode`].
    pub fn delete_entries(&self, filter: &EntryFilter) -> Result<usize, NetlinkError> {
        self.delete_listed_entries(&filter.encode(), |entry| filter.matches(entry))
    }

    /// Deletes the entries that match the filter and for which `must_delete` returns true. Returns the number of
    /// deleted entries. Each call lists the table, so one call for many endpoints is cheaper than one call for each
    /// endpoint.
    pub fn delete_entries_if(
        &self,
        filter: &EntryFilter,
        must_delete: impl Fn(&Entry) -> bool,
    ) -> Result<usize, NetlinkError> {
        self.delete_listed_entries(&filter.encode(), |entry| filter.matches(entry) && must_delete(entry))
    }

    /// Returns the entries that match the filter.
    pub fn entries(&self, filter: &EntryFilter) -> Result<Vec<Entry>, NetlinkError> {
        let mut entries = Vec::new();
        self.dump_socket.request(&filter.encode(), |message| {
            entries.extend(
                Entry::parse(message.attrs(abi::HEADER_LENGTH)).filter(|entry| filter.matches(entry)),
            );
        })?;
        Ok(entries)
    }

    /// Deletes each entry that the kernel lists for the request `dump_request`, if `must_delete` returns true.
    fn delete_listed_entries(
        &self,
        dump_request: &Messages,
        must_delete: impl Fn(&Entry) -> bool,
    ) -> Result<usize, NetlinkError> {
        let mut result = Ok(0);
        self.dump_socket.request(dump_request, |entry| {
            let attrs = entry.attrs(abi::HEADER_LENGTH);
            if let Ok(deleted_count) = &mut result
                && Entry::parse(attrs).is_some_and(|entry| must_delete(&entry))
            {
                match self.delete_entry(entry.payload, attrs) {
                    Ok(was_deleted) => *deleted_count += usize::from(was_deleted),
                    Err(error) => result = Err(error),
                }
            }
        })?;
        result
    }

    /// Deletes one entry. Returns false if the entry no longer existed.
    fn delete_entry(&self, payload: &[u8], attrs: &[u8]) -> Result<bool, NetlinkError> {
        // If the request had no tuple, the kernel would delete all entries.
        let (Some(tuple), Some(id)) =
            (Attr::find(attrs, abi::CTA_TUPLE_ORIG), Attr::find(attrs, abi::CTA_ID))
        else {
            return Ok(false);
        };
        let family = payload.first().copied().unwrap_or(0);
        let zone = Attr::find(attrs, abi::CTA_ZONE);
        let request = Messages::single(abi::DELETE_ENTRY, message::NLM_F_ACK, &[family, 0, 0, 0], |attrs| {
            attrs.push_nested(abi::CTA_TUPLE_ORIG, |attrs| attrs.0.extend_from_slice(tuple));
            if let Some(zone) = zone {
                attrs.push_bytes(abi::CTA_ZONE, zone);
            }
            attrs.push_bytes(abi::CTA_ID, id);
        });
        match self.delete_socket.request(&request, |_| ()) {
            Ok(()) => Ok(true),
            Err(NetlinkError::Rejected { errno: Errno::NOENT, .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

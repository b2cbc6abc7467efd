//! The kernel's table of flows: lists it, and deletes stale entries. Does I/O.

use rustix::io::Errno;

use super::entry::{self, Flow};
use super::statistics::Statistics;
use crate::netlink::{Attr, Messages, NetlinkError, Protocol, Socket, message};

/// `NFNL_SUBSYS_CTNETLINK` and enum `cntl_msg_types`, as message types.
const GET: u16 = 1 << 8 | 1;
const DELETE: u16 = 1 << 8 | 2;
const GET_STATISTICS_OF_CPUS: u16 = 1 << 8 | 4;
const GET_STATISTICS: u16 = 1 << 8 | 5;
/// Length of struct `nfgenmsg`.
const HEADER_LEN: usize = 4;

/// The flows of the network namespace in which it was opened.
#[derive(Debug)]
pub struct Flows {
    listing: Socket,
    deleting: Socket,
}

impl Flows {
    /// Opens the way to the kernel, in this thread's network namespace.
    pub fn open() -> Result<Self, NetlinkError> {
        let open = || Socket::open(Protocol::Netfilter);
        Ok(Self { listing: open()?, deleting: open()? })
    }

    /// The state of connection tracking.
    pub fn statistics(&self) -> Result<Statistics, NetlinkError> {
        let mut statistics = Statistics::default();
        let ask = |kind, flags| Messages::one(kind, flags, &[0; HEADER_LEN], |_| ());
        self.listing.request(&ask(GET_STATISTICS_OF_CPUS, message::DUMP), |cpu| {
            statistics.add_cpu(cpu.attrs(HEADER_LEN));
        })?;
        self.listing.request(&ask(GET_STATISTICS, message::ACK), |global| {
            statistics.set_global(global.attrs(HEADER_LEN));
        })?;
        Ok(statistics)
    }

    /// Deletes the entries whose flow `is_stale`; returns how many.
    ///
    /// Deletes one by one: kernels before 6.12 have no filter for deletion, and some delete all entries instead.
    pub fn delete_stale(&self, is_stale: impl Fn(&Flow) -> bool) -> Result<usize, NetlinkError> {
        let list = Messages::one(GET, message::DUMP, &[0; HEADER_LEN], |_| ());
        let mut deleted = Ok(0);
        self.listing.request(&list, |listed| {
            let attrs = listed.attrs(HEADER_LEN);
            if let Ok(count) = &mut deleted
                && Flow::read(attrs).is_some_and(|flow| is_stale(&flow))
            {
                match delete(&self.deleting, listed.payload, attrs) {
                    Ok(existed) => *count += usize::from(existed),
                    Err(error) => deleted = Err(error),
                }
            }
        })?;
        deleted
    }
}

/// Deletes exactly this flow; returns whether it was still there.
fn delete(socket: &Socket, payload: &[u8], attrs: &[u8]) -> Result<bool, NetlinkError> {
    // Without a tuple, the kernel would delete all flows.
    let (Some(tuple), Some(id)) = (Attr::find(attrs, entry::TUPLE_ORIGINAL), Attr::find(attrs, entry::ID))
    else {
        return Ok(false);
    };
    let family = payload.first().copied().unwrap_or(0);
    let request = Messages::one(DELETE, message::ACK, &[family, 0, 0, 0], |attrs| {
        attrs.nested(entry::TUPLE_ORIGINAL, |inner| inner.0.extend_from_slice(tuple));
        attrs.bytes(entry::ID, id);
    });
    match socket.request(&request, |_| ()) {
        Ok(()) => Ok(true),
        Err(NetlinkError::Refused { errno: Errno::NOENT, .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

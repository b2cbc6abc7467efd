//! Fills and empties the conntrack table of a network namespace. Does I/O.

use netfilter::netlink::{Attrs, Messages, NetlinkError, Protocol, Socket, message};
use rustix::io::Errno;

use super::Namespace;

/// `NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_NEW` (`linux/netfilter/nfnetlink_conntrack.h`).
const NEW_ENTRY_MESSAGE: u16 = 1 << 8;
/// `NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_DELETE`.
const DELETE_ENTRIES_MESSAGE: u16 = 1 << 8 | 2;
/// `struct nfgenmsg` with the family `NFPROTO_IPV4`.
const IPV4_HEADER: [u8; 4] = [2, 0, 0, 0];
/// `struct nfgenmsg` with the family `NFPROTO_UNSPEC`.
const ANY_FAMILY_HEADER: [u8; 4] = [0; 4];
const ENTRIES_PER_REQUEST: u32 = 100;
/// `IPS_SEEN_REPLY`, `IPS_ASSURED` and `IPS_CONFIRMED`: the kernel does not evict an entry with this status.
const ENTRY_STATUS: u32 = 0b1110;
const ENTRY_TIMEOUT_SECONDS: u32 = 3600;
/// The source port and destination port of each entry. No program listens on this port.
const CLOSED_PORT: u16 = 9;

/// Adds UDP entries until the table is full; `limit` is the table's size.
pub fn fill_table(pod: &Namespace, limit: u64) {
    let limit = u32::try_from(limit).unwrap();
    pod.run(|| {
        let socket = Socket::open(Protocol::Netfilter).unwrap();
        for first_number in (0..=limit).step_by(ENTRIES_PER_REQUEST.try_into().unwrap()) {
            let mut entries = Messages::default();
            let last_number = first_number + ENTRIES_PER_REQUEST - 1;
            for number in first_number..=last_number {
                let ack_flag = if number == last_number { message::NLM_F_ACK } else { 0 };
                let flags = message::NLM_F_CREATE | ack_flag;
                entries.push(NEW_ENTRY_MESSAGE, flags, &IPV4_HEADER, |attrs| push_entry(attrs, number));
            }
            match socket.request(&entries, |_| ()) {
                Ok(()) => {}
                Err(NetlinkError::Rejected { errno: Errno::NOMEM, .. }) => return,
                Err(error) => panic!("{error}"),
            }
        }
        panic!("the conntrack table has more than {limit} entries");
    });
}

/// Deletes all entries.
pub fn delete_all_entries(pod: &Namespace) {
    let delete_request =
        Messages::single(DELETE_ENTRIES_MESSAGE, message::NLM_F_ACK, &ANY_FAMILY_HEADER, |_| ());
    pod.run(|| Socket::open(Protocol::Netfilter).unwrap().request(&delete_request, |_| ()).unwrap());
}

/// Appends the attributes of entry `number`. The source is 11.0.0.0 plus `number`, and the destination is 11.255.0.1.
/// The kernel does not translate the addresses of the entry.
fn push_entry(attrs: &mut Attrs<'_>, number: u32) {
    let client = (11 << 24 | number).to_be_bytes();
    let server = [11, 255, 0, 1];
    // CTA_TUPLE_ORIG and CTA_TUPLE_REPLY.
    for (tuple, source, destination) in [(1, client, server), (2, server, client)] {
        attrs.push_nested(tuple, |tuple| {
            // CTA_TUPLE_IP with CTA_IP_V4_SRC and CTA_IP_V4_DST.
            tuple.push_nested(1, |ip| {
                ip.push_bytes(1, &source);
                ip.push_bytes(2, &destination);
            });
            // CTA_TUPLE_PROTO with CTA_PROTO_NUM (17 is UDP), CTA_PROTO_SRC_PORT and CTA_PROTO_DST_PORT.
            tuple.push_nested(2, |udp| {
                udp.push_bytes(1, &[17]);
                udp.push_bytes(2, &CLOSED_PORT.to_be_bytes());
                udp.push_bytes(3, &CLOSED_PORT.to_be_bytes());
            });
        });
    }
    // CTA_STATUS and CTA_TIMEOUT.
    attrs.push_be32(3, ENTRY_STATUS);
    attrs.push_be32(7, ENTRY_TIMEOUT_SECONDS);
}

//! Fills a network namespace's table of tracked flows, as more clients than there is room for would; empties it.

use netfilter::netlink::{Attrs, Messages, NetlinkError, Protocol, Socket, message};
use rustix::io::Errno;

use super::Namespace;

/// `NFNL_SUBSYS_CTNETLINK`, `IPCTNL_MSG_CT_NEW` and `IPCTNL_MSG_CT_DELETE`
/// (`linux/netfilter/nfnetlink_conntrack.h`).
const NEW: u16 = 1 << 8;
const DELETE: u16 = 1 << 8 | 2;
/// `NFPROTO_IPV4`, as the header has it.
const HEADER: [u8; 4] = [2, 0, 0, 0];
const PER_REQUEST: u32 = 100;
/// `IPS_SEEN_REPLY`, `IPS_ASSURED` and `IPS_CONFIRMED`: it doesn't make room for new ones.
const ASSURED: u32 = 0b1110;
const AN_HOUR: u32 = 3600;

/// Enters UDP flows until there is no room for another; `limit` is how many there may be.
pub fn fill(pod: &Namespace, limit: u64) {
    let limit = u32::try_from(limit).unwrap();
    pod.run(|| {
        let socket = Socket::open(Protocol::Netfilter).unwrap();
        for first in (0..=limit).step_by(PER_REQUEST.try_into().unwrap()) {
            let mut flows = Messages::default();
            let last = first + PER_REQUEST - 1;
            for number in first..=last {
                let ack = if number == last { message::ACK } else { 0 };
                flows.push(NEW, message::CREATE | ack, &HEADER, |attrs| flow(attrs, number));
            }
            match socket.request(&flows, |_| ()) {
                Ok(()) => {}
                Err(NetlinkError::Rejected { errno: Errno::NOMEM, .. }) => return,
                Err(error) => panic!("{error}"),
            }
        }
        panic!("there was room for more than {limit} flows");
    });
}

/// Forgets all flows.
pub fn flush(pod: &Namespace) {
    let all = Messages::single(DELETE, message::ACK, &[0; 4], |_| ());
    pod.run(|| Socket::open(Protocol::Netfilter).unwrap().request(&all, |_| ()).unwrap());
}

/// A flow from 11.0.0.0 and following to 11.255.0.1, not translated.
fn flow(attrs: &mut Attrs<'_>, number: u32) {
    let client = (11 << 24 | number).to_be_bytes();
    let server = [11, 255, 0, 1];
    for (tuple, from, to) in [(1, client, server), (2, server, client)] {
        attrs.nested(tuple, |tuple| {
            tuple.nested(1, |ip| {
                ip.bytes(1, &from);
                ip.bytes(2, &to);
            });
            tuple.nested(2, |udp| {
                udp.bytes(1, &[17]);
                udp.bytes(2, &9_u16.to_be_bytes());
                udp.bytes(3, &9_u16.to_be_bytes());
            });
        });
    }
    attrs.be32(3, ASSURED);
    attrs.be32(7, AN_HOUR);
}

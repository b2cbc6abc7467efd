//! The switches of IPv4 forwarding, one per interface, over netlink: for /proc/sys is read-only in a pod.
//!
//! A packet is passed on if the interface that it came in by has its switch on; `ip_forward` only sets all
//! of them (Documentation/networking/ip-sysctl.rst).

use netfilter::netlink::{Attr, Message, Messages, NetlinkError, Protocol, Socket, message};

/// How often a list that changes while it is read is asked for again.
const ATTEMPTS: u32 = 10;
/// linux/rtnetlink.h.
const NEW_LINK: u16 = 16;
const GET_LINK: u16 = 18;
const SET_LINK: u16 = 19;
/// Length of struct `ifinfomsg`.
const HEADER_LEN: usize = 16;
/// linux/if.h.
const LOOPBACK: u32 = 0x8;
/// `linux/if_link.h`; in `IFLA_AF_SPEC`, the attributes are address families.
const NAME: u16 = 3;
const AF_SPEC: u16 = 26;
const AF_INET: u16 = 2;
const INET_CONF: u16 = 1;
/// linux/ip.h: an attribute type when set, and plus one the place in the array when listed.
const DEVCONF_FORWARDING: u16 = 1;

/// An interface that doesn't pass packets on.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Closed {
    index: [u8; 4],
    name: String,
}

/// Switches forwarding on where it is off; returns the names of those interfaces.
pub fn enable() -> Result<Vec<String>, NetlinkError> {
    let socket = Socket::open(Protocol::Route)?;
    let closed = list(&socket)?;
    for interface in &closed {
        socket.request(&open(interface), |_| ())?;
    }
    Ok(closed.into_iter().map(|interface| interface.name).collect())
}

/// Whether every interface passes packets on.
pub fn is_on() -> Result<bool, NetlinkError> {
    Ok(list(&Socket::open(Protocol::Route)?)?.is_empty())
}

fn list(socket: &Socket) -> Result<Vec<Closed>, NetlinkError> {
    let list = Messages::one(GET_LINK, message::DUMP, &[0; HEADER_LEN], |_| ());
    for _ in 0..ATTEMPTS {
        let mut closed = Vec::new();
        match socket.request(&list, |link| closed.extend(read(link))) {
            Err(NetlinkError::Interrupted) => {}
            listed => return listed.map(|()| closed),
        }
    }
    Err(NetlinkError::Interrupted)
}

/// The interface that a message lists, if it should pass packets on and doesn't.
fn read(link: &Message<'_>) -> Option<Closed> {
    let flags = u32::from_ne_bytes(*link.payload.get(8..)?.first_chunk()?);
    if link.kind != NEW_LINK || flags & LOOPBACK != 0 {
        return None;
    }
    let attrs = link.attrs(HEADER_LEN);
    let inet = Attr::find(Attr::find(attrs, AF_SPEC)?, AF_INET)?;
    let forwarding = u32::from_ne_bytes(*Attr::find(inet, INET_CONF)?.first_chunk()?);
    let name = Attr::find_text(attrs, NAME)?.to_owned();
    (forwarding == 0).then_some(Closed { index: *link.payload.get(4..)?.first_chunk()?, name })
}

fn open(interface: &Closed) -> Messages {
    let mut header = [0; HEADER_LEN];
    header[4..8].copy_from_slice(&interface.index);
    Messages::one(SET_LINK, message::ACK, &header, |attrs| {
        attrs.nested(AF_SPEC, |families| {
            families.nested(AF_INET, |inet| {
                inet.nested(INET_CONF, |conf| conf.bytes(DEVCONF_FORWARDING, &1_u32.to_ne_bytes()));
            });
        });
    })
}

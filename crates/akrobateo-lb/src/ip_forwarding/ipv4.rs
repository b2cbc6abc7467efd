//! Reads and writes the sysctl of IPv4 forwarding of each interface. Uses netlink, because /proc/sys is read-only in a
//! pod. Does I/O.
//!
//! The kernel forwards a packet if forwarding is on for the interface on which the packet arrived. A write to the
//! sysctl `ip_forward` only copies the written value to the sysctls of all interfaces
//! (Documentation/networking/ip-sysctl.rst).

use netfilter::netlink::{Attr, Message, Messages, NetlinkError, Protocol, Socket, message};

/// `RTM_NEWLINK`, `RTM_GETLINK` and `RTM_SETLINK` (linux/rtnetlink.h).
const NEW_LINK: u16 = 16;
const GET_LINK: u16 = 18;
const SET_LINK: u16 = 19;
/// The length of struct `ifinfomsg` (linux/rtnetlink.h).
const IFINFOMSG_LEN: usize = 16;
/// `IFF_LOOPBACK` (linux/if.h).
const LOOPBACK_FLAG: u32 = 0x8;
/// `IFLA_IFNAME`, `IFLA_AF_SPEC` and `IFLA_INET_CONF` (`linux/if_link.h`). The attributes inside `IFLA_AF_SPEC` have
/// address families as their types.
const INTERFACE_NAME: u16 = 3;
const AF_SPEC: u16 = 26;
const AF_INET: u16 = 2;
const INET_CONF: u16 = 1;
/// `IPV4_DEVCONF_FORWARDING` (linux/ip.h). A request has one attribute per setting, and this number is the type of the
/// attribute. A dump has an array of all settings, and this number is the position in the array, counted from 1.
const DEVCONF_FORWARDING: u16 = 1;

/// An interface for which forwarding is off.
#[derive(Clone, Debug, PartialEq, Eq)]
struct NonForwardingInterface {
    index: [u8; 4],
    name: String,
}

/// Switches forwarding on for each interface where it is off. Returns the names of the changed interfaces.
pub fn enable() -> Result<Vec<String>, NetlinkError> {
    let socket = Socket::open(Protocol::Route)?;
    let interfaces = list_non_forwarding_interfaces(&socket)?;
    for interface in &interfaces {
        socket.request(&request_to_enable_forwarding(interface), |_| ())?;
    }
    Ok(interfaces.into_iter().map(|interface| interface.name).collect())
}

/// Returns true if forwarding is on for every interface except the loopback interface.
pub fn is_enabled() -> Result<bool, NetlinkError> {
    Ok(list_non_forwarding_interfaces(&Socket::open(Protocol::Route)?)?.is_empty())
}

fn list_non_forwarding_interfaces(socket: &Socket) -> Result<Vec<NonForwardingInterface>, NetlinkError> {
    let dump_request = Messages::single(GET_LINK, message::DUMP, &[0; IFINFOMSG_LEN], |_| ());
    socket.dump(&dump_request, parse_non_forwarding_interface)
}

/// Returns the interface of an `RTM_NEWLINK` message if forwarding is off for this interface.
fn parse_non_forwarding_interface(link: &Message<'_>) -> Option<NonForwardingInterface> {
    let flags = u32::from_ne_bytes(*link.payload.get(8..)?.first_chunk()?);
    if link.kind != NEW_LINK || flags & LOOPBACK_FLAG != 0 {
        return None;
    }
    let attrs = link.attrs(IFINFOMSG_LEN);
    let ipv4_attrs = Attr::find(Attr::find(attrs, AF_SPEC)?, AF_INET)?;
    let forwarding = u32::from_ne_bytes(*Attr::find(ipv4_attrs, INET_CONF)?.first_chunk()?);
    let name = Attr::find_text(attrs, INTERFACE_NAME)?.to_owned();
    (forwarding == 0)
        .then_some(NonForwardingInterface { index: *link.payload.get(4..)?.first_chunk()?, name })
}

fn request_to_enable_forwarding(interface: &NonForwardingInterface) -> Messages {
    let mut header = [0; IFINFOMSG_LEN];
    header[4..8].copy_from_slice(&interface.index);
    Messages::single(SET_LINK, message::ACK, &header, |attrs| {
        attrs.push_nested(AF_SPEC, |families| {
            families.push_nested(AF_INET, |inet| {
                inet.push_nested(INET_CONF, |conf| conf.push_bytes(DEVCONF_FORWARDING, &1_u32.to_ne_bytes()));
            });
        });
    })
}

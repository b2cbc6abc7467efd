//! Reads and writes the sysctl of IPv4 forwarding of each interface. Uses netlink, because /proc/sys is read-only in a
//! pod. Does I/O.
//!
//! The kernel forwards a packet if forwarding is on for the interface on which the packet arrived. A write to the
//! sysctl `ip_forward` only copies the written value to the sysctls of all interfaces
//! (Documentation/networking/ip-sysctl.rst).

use netfilter::netlink::{Attr, Message, Messages, NetlinkError, Protocol, Socket, message};

// The types of netlink messages (linux/rtnetlink.h).
const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTM_SETLINK: u16 = 19;
/// The length of struct `ifinfomsg` (linux/rtnetlink.h).
const IFINFOMSG_LENGTH: usize = 16;
/// The flag of the loopback interface (linux/if.h).
const IFF_LOOPBACK: u32 = 0x8;
// The attributes of an interface (`linux/if_link.h`). The types of the attributes inside `IFLA_AF_SPEC` are address
// families, for example `AF_INET`.
const IFLA_IFNAME: u16 = 3;
const IFLA_AF_SPEC: u16 = 26;
const AF_INET: u16 = 2;
const IFLA_INET_CONF: u16 = 1;
/// The sysctl `forwarding` of an interface (linux/ip.h). A request has one attribute per setting, and this number is
/// the type of the attribute. A dump has an array of all settings, and this number is the position in the array,
/// counted from 1.
const IPV4_DEVCONF_FORWARDING: u16 = 1;

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
    let dump_request = Messages::single(RTM_GETLINK, message::NLM_F_DUMP, &[0; IFINFOMSG_LENGTH], |_| ());
    socket.dump(&dump_request, parse_non_forwarding_interface)
}

/// Returns the interface of an `RTM_NEWLINK` message if forwarding is off for this interface.
fn parse_non_forwarding_interface(link: &Message<'_>) -> Option<NonForwardingInterface> {
    let flags = u32::from_ne_bytes(*link.payload.get(8..)?.first_chunk()?);
    if link.kind != RTM_NEWLINK || flags & IFF_LOOPBACK != 0 {
        return None;
    }
    let attrs = link.attrs(IFINFOMSG_LENGTH);
    let ipv4_attrs = Attr::find(Attr::find(attrs, IFLA_AF_SPEC)?, AF_INET)?;
    let forwarding = u32::from_ne_bytes(*Attr::find(ipv4_attrs, IFLA_INET_CONF)?.first_chunk()?);
    let name = Attr::find_text(attrs, IFLA_IFNAME)?.to_owned();
    (forwarding == 0)
        .then_some(NonForwardingInterface { index: *link.payload.get(4..)?.first_chunk()?, name })
}

fn request_to_enable_forwarding(interface: &NonForwardingInterface) -> Messages {
    let mut header = [0; IFINFOMSG_LENGTH];
    header[4..8].copy_from_slice(&interface.index);
    Messages::single(RTM_SETLINK, message::NLM_F_ACK, &header, |attrs| {
        attrs.push_nested(IFLA_AF_SPEC, |families| {
            families.push_nested(AF_INET, |inet| {
                inet.push_nested(IFLA_INET_CONF, |conf| {
                    conf.push_bytes(IPV4_DEVCONF_FORWARDING, &1_u32.to_ne_bytes());
                });
            });
        });
    })
}

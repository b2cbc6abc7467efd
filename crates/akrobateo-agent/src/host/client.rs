//! Lists the network interfaces over netlink. I/O only.

use netfilter::netlink::{Protocol, Socket};

use super::error::HostError;
use super::interface::Interface;
use super::message;

/// Lists the interfaces of the calling thread's network namespace, with their addresses.
pub(super) fn list_interfaces() -> Result<Vec<Interface>, HostError> {
    let socket = Socket::open(Protocol::Route).map_err(HostError::ReadFailed)?;
    let links = socket.dump(&message::build_interface_request(), message::parse_link);
    let mut interfaces = links.map_err(HostError::ReadFailed)?;
    let addresses = socket.dump(&message::build_address_request(), message::parse_address);
    for (index, address) in addresses.map_err(HostError::ReadFailed)? {
        if let Some(interface) = interfaces.iter_mut().find(|interface| interface.index == index) {
            interface.addresses.push(address);
        }
    }
    Ok(interfaces)
}

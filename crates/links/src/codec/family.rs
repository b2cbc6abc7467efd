//! Address families in rtnetlink's messages. Pure.

use std::net::IpAddr;

use akrobateo_core::family::Family;
use netlink_packet_route::AddressFamily;

/// Returns the kernel's number of a family.
pub(super) fn address_family(family: Family) -> AddressFamily {
    match family {
        Family::V4 => AddressFamily::Inet,
        Family::V6 => AddressFamily::Inet6,
    }
}

/// Returns the kernel's number of an address's family.
pub(super) fn family_of_address(address: IpAddr) -> AddressFamily {
    address_family(Family::from_ip(address))
}

//! Decides which addresses of a node clients can use. Pure.

use std::net::IpAddr;

/// Returns the addresses in the annotation, and the annotation's invalid parts in quotes. An invalid part does not
/// invalidate the other parts.
pub(crate) fn parse_addresses(text: &str) -> (Vec<IpAddr>, Vec<String>) {
    let (mut addresses, mut invalid_parts) = (Vec::new(), Vec::new());
    for part in text.split(',').map(str::trim) {
        match part.parse().ok().filter(is_publishable) {
            Some(address) => addresses.push(address),
            None => invalid_parts.push(format!("{part:?}")),
        }
    }
    (addresses, invalid_parts)
}

/// Returns true if clients on other machines may use the address, and if the API server accepts the address in a
/// status.
pub(crate) fn is_publishable(address: &IpAddr) -> bool {
    let is_special = match address {
        IpAddr::V4(address) => address.is_link_local() || address.is_broadcast(),
        IpAddr::V6(address) => address.is_unicast_link_local() || address.to_ipv4_mapped().is_some(),
    };
    !is_special && !address.is_unspecified() && !address.is_loopback() && !address.is_multicast()
}

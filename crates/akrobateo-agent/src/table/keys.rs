//! Parses the keys and values of the table's sets from their bytes. Pure.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;

use akrobateo_core::{Family, Protocol};
use netfilter::nft::Table;
use netfilter::nft::model::{Element, ElementValue, Value};

use super::ip_version::IpVersion;
use super::steering::KEPT_PEERS_SET;
use crate::probe::PeerPath;

/// A Service's port, as the key of a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PortKey {
    /// The protocol.
    pub protocol: Protocol,
    /// The port to which clients send packets.
    pub port: NonZeroU16,
}

/// Returns the address and the port from an element of `services4` or `services6`.
#[must_use]
pub fn parse_service(family: Family, element: &Element) -> Option<(IpAddr, PortKey)> {
    let (address, port_bytes) = split_address(family, &element.key)?;
    Some((address, parse_port_key(port_bytes)?))
}

/// Returns the text that identifies the Service of an element of `services4` or `services6`. The text begins with the name
/// of the Service ([`crate::config::service_identity`]).
#[must_use]
pub fn service_identity(element: &Element) -> Option<&str> {
    element.comment.as_deref().map(AsRef::as_ref)
}

/// Returns the Service's port and the endpoint's address from an element of `endpoints4` or `endpoints6`.
#[must_use]
pub fn parse_endpoint(family: Family, element: &Element) -> Option<(PortKey, SocketAddr)> {
    Some((parse_port_key(element.key.bytes())?, parse_socket_address(family, element)?))
}

/// Returns the client, the Service's port and the endpoint from an element of a map for session affinity.
#[must_use]
pub fn parse_affinity(family: Family, element: &Element) -> Option<(IpAddr, PortKey, SocketAddr)> {
    let (client, port) = parse_service(family, element)?;
    Some((client, port, parse_socket_address(family, element)?))
}

/// Returns the elements of a family's set or map. Returns an empty list if the table lacks the set.
#[must_use]
pub fn family_set<'a>(table: &'a Table, family: Family, name: &str) -> &'a [Element] {
    table.set(&IpVersion::from_family(family).add_suffix(name)).map_or(&[], |set| &set.elements)
}

/// Returns the family, the conntrack zone and the path of each peer that has a path.
#[must_use]
pub fn paths_in_table(table: &Table) -> Vec<(Family, u16, PeerPath)> {
    let has_path = |(family, zone, _): &(Family, u16, PeerPath)| {
        family_set(table, *family, KEPT_PEERS_SET).iter().any(|peer| parse_zone(peer) == Some(*zone))
    };
    last_paths_in_table(table).into_iter().filter(has_path).collect()
}

/// Returns the family, the conntrack zone, and the path of established flows, of each peer.
#[must_use]
pub fn last_paths_in_table(table: &Table) -> Vec<(Family, u16, PeerPath)> {
    let mut paths = Vec::new();
    for family in Family::ALL {
        for (map, path) in [("zone_direct_marks", PeerPath::Direct), ("zone_tunnel_marks", PeerPath::Tunnel)]
        {
            let zones = family_set(table, family, map).iter().filter_map(parse_zone);
            paths.extend(zones.map(|zone| (family, zone, path)));
        }
    }
    paths
}

fn parse_zone(element: &Element) -> Option<u16> {
    Some(u16::from_ne_bytes(*element.key.bytes().first_chunk()?))
}

/// Returns the address that is the key of an element.
#[must_use]
pub fn parse_address(family: Family, element: &Element) -> Option<IpAddr> {
    split_address(family, &element.key).map(|(address, _)| address)
}

fn parse_socket_address(family: Family, element: &Element) -> Option<SocketAddr> {
    let Some(ElementValue::Data(value)) = &element.value else { return None };
    let (address, port) = split_address(family, value)?;
    Some(SocketAddr::new(address, u16::from_be_bytes(*port.first_chunk()?)))
}

/// Splits a value into an address and the remaining bytes.
fn split_address(family: Family, value: &Value) -> Option<(IpAddr, &[u8])> {
    match family {
        Family::V4 => {
            let (address, remaining_bytes) = value.bytes().split_first_chunk::<4>()?;
            Some((IpAddr::from(*address), remaining_bytes))
        }
        Family::V6 => {
            let (address, remaining_bytes) = value.bytes().split_first_chunk::<16>()?;
            Some((IpAddr::from(*address), remaining_bytes))
        }
    }
}

/// Parses a protocol and a port. The protocol and the port are padded to four bytes each.
pub(super) fn parse_port_key(bytes: &[u8]) -> Option<PortKey> {
    let (protocol, port) = bytes.split_first_chunk::<4>()?;
    let protocol = Protocol::ALL.into_iter().find(|it| it.number() == protocol[0])?;
    Some(PortKey { protocol, port: NonZeroU16::new(u16::from_be_bytes(*port.first_chunk()?))? })
}

//! Source ranges: the client addresses that may connect, as ranges without overlap. Pure.

use std::net::IpAddr;

use akrobateo_core::Family;
use ipnet::IpNet;

/// The addresses from `first` to `last`, both included. An IPv4 address is in the lower 32 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressRange {
    /// The lowest address of the range.
    pub first: u128,
    /// The highest address of the range.
    pub last: u128,
}

/// The allowed ranges of both families. The ranges are sorted, and no two ranges are adjacent. All clients of a family
/// without ranges are denied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceRanges {
    v4: Vec<AddressRange>,
    v6: Vec<AddressRange>,
}

impl SourceRanges {
    /// Creates the ranges of `nets`. Ranges that overlap or touch are merged.
    #[must_use]
    pub fn new(nets: &[IpNet]) -> Self {
        let merged_ranges = |family| {
            let nets = nets.iter().filter(|net| Family::from_ip(net.addr()) == family);
            merge_ranges(nets.map(to_range).collect())
        };
        Self { v4: merged_ranges(Family::V4), v6: merged_ranges(Family::V6) }
    }

    /// Returns the ranges of one family.
    #[must_use]
    pub fn ranges(&self, family: Family) -> &[AddressRange] {
        match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        }
    }

    /// Returns true if a client with this address may connect.
    #[must_use]
    pub fn allows(&self, client: IpAddr) -> bool {
        let address = to_bits(client);
        let ranges = self.ranges(Family::from_ip(client));
        let index = ranges.partition_point(|range| range.last < address);
        ranges.get(index).is_some_and(|range| range.first <= address)
    }
}

fn to_bits(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => ip.to_bits().into(),
        IpAddr::V6(ip) => ip.to_bits(),
    }
}

fn to_range(net: &IpNet) -> AddressRange {
    AddressRange { first: to_bits(net.network()), last: to_bits(net.broadcast()) }
}

fn merge_ranges(mut ranges: Vec<AddressRange>) -> Vec<AddressRange> {
    ranges.sort_by_key(|range| range.first);
    ranges.into_iter().fold(Vec::new(), |mut merged: Vec<AddressRange>, range| {
        match merged.last_mut() {
            Some(previous) if range.first <= previous.last.saturating_add(1) => {
                previous.last = previous.last.max(range.last);
            }
            _ => merged.push(range),
        }
        merged
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse_source_ranges(nets: &[&str]) -> SourceRanges {
        SourceRanges::new(&nets.iter().map(|net| net.parse().unwrap()).collect::<Vec<_>>())
    }

    #[test]
    fn overlapping_and_adjacent_ranges_are_merged() {
        let sources = parse_source_ranges(&["10.0.1.0/25", "10.0.0.0/24", "10.0.0.128/25", "10.0.2.0/24"]);
        let address = |text: &str| to_bits(text.parse().unwrap());
        let expected = [
            AddressRange { first: address("10.0.0.0"), last: address("10.0.1.127") },
            AddressRange { first: address("10.0.2.0"), last: address("10.0.2.255") },
        ];
        assert_eq!(sources.ranges(Family::V4), expected);
        assert!(sources.ranges(Family::V6).is_empty());
    }

    #[test]
    fn range_of_prefix_length_zero_allows_every_address() {
        let sources = parse_source_ranges(&["0.0.0.0/0", "::/0"]);
        assert!(sources.allows("255.255.255.255".parse().unwrap()));
        assert_eq!(sources.ranges(Family::V6), [AddressRange { first: 0, last: u128::MAX }]);
    }

    #[test]
    fn host_bits_of_a_range_are_ignored() {
        assert_eq!(parse_source_ranges(&["10.1.2.3/8"]), parse_source_ranges(&["10.0.0.0/8"]));
    }

    /// Generates nets that are close together, so that the nets often overlap or touch.
    fn any_net() -> impl Strategy<Value = IpNet> {
        let v4 = (any::<u8>(), 24..=32_u8).prop_map(|(low, length)| (IpAddr::from([10, 0, 0, low]), length));
        let v6 = (any::<u8>(), 120..=128_u8)
            .prop_map(|(low, length)| (IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, u16::from(low)]), length));
        prop_oneof![v4, v6].prop_map(|(ip, length)| IpNet::new_assert(ip, length))
    }

    proptest! {
        #[test]
        fn merged_ranges_allow_the_same_clients_and_are_not_adjacent(
            nets in prop::collection::vec(any_net(), 0..12),
            low in any::<u8>(),
        ) {
            let sources = SourceRanges::new(&nets);
            for ip in [IpAddr::from([10, 0, 0, low]), IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, u16::from(low)])] {
                prop_assert_eq!(sources.allows(ip), nets.iter().any(|net| net.contains(&ip)));
            }
            for family in Family::ALL {
                for pair in sources.ranges(family).windows(2) {
                    prop_assert!(pair[0].last + 1 < pair[1].first);
                }
            }
        }
    }
}

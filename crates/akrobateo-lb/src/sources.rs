//! The client addresses that are let in, as ranges without overlap. Pure.

use std::net::IpAddr;

use ipnet::IpNet;

use akrobateo_core::Family;

/// Addresses from `first` to `last`, both included; IPv4 addresses in the lower 32 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The lowest address.
    pub first: u128,
    /// The highest address.
    pub last: u128,
}

/// The ranges of both families, each sorted, with gaps between them; an empty family lets nobody in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sources {
    v4: Vec<Range>,
    v6: Vec<Range>,
}

impl Sources {
    /// The ranges of all `nets`, where overlapping and adjacent ones have become one.
    #[must_use]
    pub fn new(nets: &[IpNet]) -> Self {
        let of = |family| {
            merge(nets.iter().filter(|net| Family::from_ip(net.addr()) == family).map(range).collect())
        };
        Self { v4: of(Family::V4), v6: of(Family::V6) }
    }

    /// The ranges of one family.
    #[must_use]
    pub fn of(&self, family: Family) -> &[Range] {
        match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        }
    }

    /// Whether a client with this address is let in.
    #[must_use]
    pub fn allow(&self, client: IpAddr) -> bool {
        let bits = bits(client);
        let ranges = self.of(Family::from_ip(client));
        let at = ranges.partition_point(|range| range.last < bits);
        ranges.get(at).is_some_and(|range| range.first <= bits)
    }
}

fn bits(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => ip.to_bits().into(),
        IpAddr::V6(ip) => ip.to_bits(),
    }
}

fn range(net: &IpNet) -> Range {
    Range { first: bits(net.network()), last: bits(net.broadcast()) }
}

fn merge(mut ranges: Vec<Range>) -> Vec<Range> {
    ranges.sort_by_key(|range| range.first);
    ranges.into_iter().fold(Vec::new(), |mut merged: Vec<Range>, range| {
        match merged.last_mut() {
            Some(before) if range.first <= before.last.saturating_add(1) => {
                before.last = before.last.max(range.last);
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

    fn sources(nets: &[&str]) -> Sources {
        Sources::new(&nets.iter().map(|net| net.parse().unwrap()).collect::<Vec<_>>())
    }

    #[test]
    fn overlapping_and_adjacent_ranges_become_one() {
        let sources = sources(&["10.0.1.0/25", "10.0.0.0/24", "10.0.0.128/25", "10.0.2.0/24"]);
        let at = |text: &str| bits(text.parse().unwrap());
        let expected = [
            Range { first: at("10.0.0.0"), last: at("10.0.1.127") },
            Range { first: at("10.0.2.0"), last: at("10.0.2.255") },
        ];
        assert_eq!(sources.of(Family::V4), expected);
        assert!(sources.of(Family::V6).is_empty());
    }

    #[test]
    fn a_range_may_be_everything() {
        let sources = sources(&["0.0.0.0/0", "::/0"]);
        assert!(sources.allow("255.255.255.255".parse().unwrap()));
        assert_eq!(sources.of(Family::V6), [Range { first: 0, last: u128::MAX }]);
    }

    #[test]
    fn host_bits_do_not_matter() {
        assert_eq!(sources(&["10.1.2.3/8"]), sources(&["10.0.0.0/8"]));
    }

    /// Nets close together, so that they overlap and touch often.
    fn net() -> impl Strategy<Value = IpNet> {
        let v4 = (any::<u8>(), 24..=32_u8).prop_map(|(low, len)| (IpAddr::from([10, 0, 0, low]), len));
        let v6 = (any::<u8>(), 120..=128_u8)
            .prop_map(|(low, len)| (IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, u16::from(low)]), len));
        prop_oneof![v4, v6].prop_map(|(ip, len)| IpNet::new_assert(ip, len))
    }

    proptest! {
        #[test]
        fn merging_changes_neither_who_is_let_in_nor_leaves_ranges_that_touch(
            nets in prop::collection::vec(net(), 0..12),
            low in any::<u8>(),
        ) {
            let sources = Sources::new(&nets);
            for ip in [IpAddr::from([10, 0, 0, low]), IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, u16::from(low)])] {
                prop_assert_eq!(sources.allow(ip), nets.iter().any(|net| net.contains(&ip)));
            }
            for family in Family::ALL {
                for pair in sources.of(family).windows(2) {
                    prop_assert!(pair[0].last + 1 < pair[1].first);
                }
            }
        }
    }
}

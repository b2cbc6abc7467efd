//! The differences between IPv4 and IPv6 in the table: names, types and headers. Pure.

use std::net::IpAddr;

use akrobateo_core::Family;
use ipnet::IpNet;
use netfilter::nft::abi::meta;
use netfilter::nft::model::{DataType, Expr, Name, PayloadBase, Reg, Value};

/// IPv4 or IPv6, with the constants that the rules and sets of this IP version need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct IpVersion {
    pub(super) family: Family,
    /// The type of the addresses in sets.
    pub(super) address_type: DataType,
    /// The number of registers that an address needs.
    pub(super) address_register_count: u8,
    /// The number of the family in `meta nfproto`.
    pub(super) nfproto: u8,
    suffix: &'static str,
    source_offset: u32,
    destination_offset: u32,
}

const IP_VERSIONS: [IpVersion; 2] = [
    IpVersion {
        family: Family::V4,
        address_type: DataType::IPV4,
        address_register_count: 1,
        nfproto: 2,
        suffix: "4",
        source_offset: 12,
        destination_offset: 16,
    },
    IpVersion {
        family: Family::V6,
        address_type: DataType::IPV6,
        address_register_count: 4,
        nfproto: 10,
        suffix: "6",
        source_offset: 8,
        destination_offset: 24,
    },
];

impl IpVersion {
    /// Returns the IP version of a family.
    pub(super) const fn from_family(family: Family) -> Self {
        match family {
            Family::V4 => IP_VERSIONS[0],
            Family::V6 => IP_VERSIONS[1],
        }
    }

    /// Adds the suffix of the IP version to the name of a set, a map or a chain, for example `endpoints4`.
    pub(super) fn add_suffix(self, name: &str) -> Name {
        format!("{name}{}", self.suffix).into()
    }

    /// Returns the expressions that match packets of the IP version. The expressions use register 0.
    pub(super) fn match_packets(self) -> Vec<Expr> {
        vec![Expr::Meta { key: meta::KEY_NFPROTO, dreg: Reg(0) }, Expr::equal(Reg(0), [self.nfproto])]
    }

    /// Returns the expression that loads the source address.
    pub(super) const fn load_source(self, reg: Reg) -> Expr {
        Expr::payload(PayloadBase::Network, self.source_offset, self.address_type.length, reg)
    }

    /// Returns the expression that loads the destination address.
    pub(super) const fn load_destination(self, reg: Reg) -> Expr {
        Expr::payload(PayloadBase::Network, self.destination_offset, self.address_type.length, reg)
    }

    /// Returns the expressions that match packets from the addresses of a range. The expressions use register 0.
    ///
    /// If possible, the expressions compare a few whole bytes, because the comparison with a range is much slower.
    pub(super) fn is_source_in_range(self, range: &IpNet) -> Vec<Expr> {
        let (first, last) = (address_value(range.network()), address_value(range.broadcast()));
        let prefix_bytes = range.prefix_len() / 8;
        let prefix = first.bytes().get(..usize::from(prefix_bytes)).and_then(Value::from_slice);
        match prefix {
            Some(prefix) if range.prefix_len().is_multiple_of(8) && (1..=4).contains(&prefix_bytes) => vec![
                Expr::payload(PayloadBase::Network, self.source_offset, prefix_bytes.into(), Reg(0)),
                Expr::equal(Reg(0), prefix),
            ],
            _ => {
                vec![self.load_source(Reg(0)), Expr::Range { sreg: Reg(0), is_inverted: false, first, last }]
            }
        }
    }
}

/// Returns the constants of IPv4 and of IPv6.
pub(super) fn all_ip_versions() -> [IpVersion; 2] {
    Family::ALL.map(IpVersion::from_family)
}

/// Returns an address as a value.
pub(super) fn address_value(address: IpAddr) -> Value {
    match address {
        IpAddr::V4(address) => Value::from(address.octets()),
        IpAddr::V6(address) => Value::from(address.octets()),
    }
}

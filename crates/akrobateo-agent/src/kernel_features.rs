//! The features of nftables that the data path needs from the kernel, as small tables that use one feature each. Pure.
//!
//! A kernel has a feature if the kernel accepts the table of this feature. The version of the kernel does not show its
//! features. Distributions add features to old kernels, and build new kernels without some features.

use netfilter::nft::Table;
use netfilter::nft::abi::reject;
use netfilter::nft::model::{
    Chain, ChainType, DataType, Expr, Hook, KeyMatching, Reject, Rule, Set, SetDefinition, TableFamily,
    TableId,
};

use crate::table::TABLE_NAME;

/// A feature of the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KernelFeature {
    /// The name of the feature, for messages.
    pub(crate) name: &'static str,
    /// The first version of Linux with this feature.
    pub(crate) linux_version: &'static str,
    /// A table that needs the feature.
    pub(crate) table: Table,
}

/// Returns the first required feature that the kernel lacks. `accepts` returns true if the kernel accepts a table.
pub(crate) fn find_missing_feature<E>(
    mut accepts: impl FnMut(&Table) -> Result<bool, E>,
) -> Result<Option<KernelFeature>, E> {
    for feature in required_features() {
        if !accepts(&feature.table)? {
            return Ok(Some(feature));
        }
    }
    Ok(None)
}

/// Returns a table that needs the egress hook. The interface `lo` exists in each network namespace.
#[must_use]
pub(crate) fn egress_hook_table() -> Table {
    let chain = Chain::base("egress", ChainType::Filter, Hook::Egress(vec!["lo".into()]), 0, Vec::new());
    table(TableFamily::Netdev, vec![chain], Vec::new())
}

/// Returns the features that the data path needs, in the order of the versions of Linux.
fn required_features() -> [KernelFeature; 4] {
    let nat_chain = |rules| Chain::base("prerouting", ChainType::Nat, Hook::Prerouting, 0, rules);
    let inet = |chains, sets| table(TableFamily::Inet, chains, sets);
    let port_and_address = DataType::concat(&[DataType::PORT, DataType::IPV4]);
    let ranges =
        SetDefinition::set(port_and_address).with_matching(KeyMatching::IntervalsOfParts(vec![2, 4]));
    let counters = SetDefinition::set(DataType::PORT).with_counters();
    let reject = Rule::new(vec![Expr::Reject(Reject::Icmpx(reject::ICMPX_PORT_UNREACHABLE))]);
    [
        KernelFeature {
            name: "NAT chains in nftables tables of family inet",
            linux_version: "5.2",
            table: inet(vec![nat_chain(Vec::new())], Vec::new()),
        },
        KernelFeature {
            name: "nftables sets with ranges in concatenations",
            linux_version: "5.6",
            table: inet(Vec::new(), vec![Set::new("ranges", ranges, Vec::new())]),
        },
        KernelFeature {
            name: "nftables sets with counters",
            linux_version: "5.7",
            table: inet(Vec::new(), vec![Set::new("counters", counters, Vec::new())]),
        },
        KernelFeature {
            name: "nftables rules that reject packets before routing",
            linux_version: "5.9",
            table: inet(vec![nat_chain(vec![reject])], Vec::new()),
        },
    ]
}

fn table(family: TableFamily, chains: Vec<Chain>, sets: Vec<Set>) -> Table {
    Table { chains, sets, ..Table::empty(TableId::new(family, format!("{TABLE_NAME}-probe"))) }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    #[test]
    fn first_missing_feature_is_found() {
        let find = |missing: &[usize]| {
            let features = required_features();
            let is_missing = |table: &Table| missing.iter().any(|index| features[*index].table == *table);
            find_missing_feature(|table| Ok::<_, Infallible>(!is_missing(table))).unwrap()
        };
        assert_eq!(find(&[]), None);
        assert_eq!(find(&[0, 1, 2, 3]).unwrap().linux_version, "5.2");
        assert_eq!(find(&[2, 3]).unwrap().linux_version, "5.7");
        assert_eq!(find(&[3]).unwrap().linux_version, "5.9");
        assert_eq!(find_missing_feature(|_| Err("no answer")), Err("no answer"));
    }

    #[test]
    fn tables_are_consistent_and_differ() {
        let mut tables: Vec<_> = required_features().map(|feature| feature.table).into();
        tables.push(egress_hook_table());
        for (index, table) in tables.iter().enumerate() {
            table.check().unwrap();
            assert!(!tables[..index].contains(table));
        }
    }
}

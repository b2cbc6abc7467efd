//! Builds random tables, and pairs of tables that have some objects in common.

use std::collections::BTreeSet;

use netfilter::nft::Table;
use netfilter::nft::model::{BaseChain, Chain, ChainType, Hook, Name, Policy, TableFamily, TableId};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;

use crate::random_rules::{RulePlace, build_rule};
use crate::random_sets::{SET_COUNT, SetSeed, any_set_seed, with_other_elements};

/// The number of regular chains. Only the first half of the chains contains jumps, so that no loops exist.
const REGULAR_CHAIN_COUNT: usize = 4;
/// The number of base chains.
const BASE_CHAIN_COUNT: usize = 4;

/// The random choices for one table.
#[derive(Clone, Debug)]
pub(crate) struct TableSeed {
    family: TableFamily,
    sets: Vec<Option<SetSeed>>,
    chains: Vec<Option<ChainSeed>>,
}

#[derive(Clone, Debug)]
struct ChainSeed {
    base: u8,
    has_drop_policy: bool,
    rules: Vec<[u8; 4]>,
}

fn any_chain_seed() -> impl Strategy<Value = ChainSeed> {
    let rules = prop::collection::vec(any::<[u8; 4]>(), 0..6);
    (any::<u8>(), any::<bool>(), rules).prop_map(|(base, has_drop_policy, rules)| ChainSeed {
        base,
        has_drop_policy,
        rules,
    })
}

pub(crate) fn any_table_seed() -> impl Strategy<Value = TableSeed> {
    let family = prop::sample::select(&TableFamily::ALL[..]);
    let sets = prop::collection::vec(prop::option::weighted(0.8, any_set_seed()), SET_COUNT);
    let chains = prop::collection::vec(
        prop::option::weighted(0.8, any_chain_seed()),
        REGULAR_CHAIN_COUNT + BASE_CHAIN_COUNT,
    );
    (family, sets, chains).prop_map(|(family, sets, chains)| TableSeed { family, sets, chains })
}

/// Returns two tables of the same family. Some sets and chains of the two tables are equal.
pub(crate) fn any_table_pair() -> impl Strategy<Value = (Table, Table)> {
    (any_table_seed(), any_table_seed()).prop_flat_map(|(first_seed, other_seed)| {
        let sets: Vec<_> = first_seed
            .sets
            .iter()
            .zip(&other_seed.sets)
            .map(|(set, other)| match set {
                Some(set) => prop_oneof![
                    2 => Just(Some(set.clone())),
                    3 => with_other_elements(set.clone()).prop_map(Some),
                    1 => Just(Some(set.clone().with_other_limit())),
                    1 => Just(other.clone()),
                ]
                .boxed(),
                None => Just(other.clone()).boxed(),
            })
            .collect();
        let chains: Vec<_> = first_seed
            .chains
            .iter()
            .zip(&other_seed.chains)
            .map(|(chain, other)| prop_oneof![3 => Just(chain.clone()), 1 => Just(other.clone())])
            .collect();
        (sets, chains).prop_map(move |(sets, chains)| {
            (first_seed.build(), TableSeed { family: first_seed.family, sets, chains }.build())
        })
    })
}

fn chain_name(slot: usize) -> Name {
    format!("chain{slot}").into()
}

impl TableSeed {
    pub(crate) fn build(&self) -> Table {
        let regular_chains = || self.chains.iter().take(REGULAR_CHAIN_COUNT).enumerate();
        let leaf_chains: Vec<_> = regular_chains()
            .filter(|(slot, seed)| *slot >= REGULAR_CHAIN_COUNT / 2 && seed.is_some())
            .map(|(slot, _)| chain_name(slot))
            .collect();
        let build_set =
            |(slot, seed): (usize, &Option<SetSeed>)| Some(seed.as_ref()?.build(slot, &leaf_chains));
        let sets: Vec<_> = self.sets.iter().enumerate().filter_map(build_set).collect();
        let build_chain = |(slot, seed): (usize, &Option<ChainSeed>)| {
            let seed = seed.as_ref()?;
            let base = (slot >= REGULAR_CHAIN_COUNT).then(|| self.build_base(seed));
            let place = RulePlace {
                family: self.family,
                base: base.as_ref().map(|base| (base.chain_type, &base.hook)),
                sets: &sets,
                target_chains: if (REGULAR_CHAIN_COUNT / 2..REGULAR_CHAIN_COUNT).contains(&slot) {
                    &[]
                } else {
                    &leaf_chains
                },
            };
            let rules = seed.rules.iter().map(|numbers| build_rule(place, *numbers)).collect();
            Some(Chain { name: chain_name(slot), base, rules })
        };
        let chains = self.chains.iter().enumerate().filter_map(build_chain).collect();
        Table { sets, chains, ..Table::empty(TableId::new(self.family, "akrobateo")) }
    }

    fn build_base(&self, seed: &ChainSeed) -> BaseChain {
        let (chain_type, hook) = if self.family == TableFamily::Netdev {
            let interfaces = match seed.base % 3 {
                0 => vec!["eth0".into()],
                1 => vec!["eth1".into()],
                _ => vec!["eth0".into(), "eth1".into()],
            };
            let hook = if seed.base & 8 == 0 { Hook::Ingress(interfaces) } else { Hook::Egress(interfaces) };
            (ChainType::Filter, hook)
        } else {
            match seed.base % 9 {
                0 => (ChainType::Filter, Hook::Prerouting),
                1 => (ChainType::Filter, Hook::Input),
                2 => (ChainType::Filter, Hook::Forward),
                3 => (ChainType::Filter, Hook::Output),
                4 => (ChainType::Filter, Hook::Postrouting),
                5 => (ChainType::Nat, Hook::Prerouting),
                6 => (ChainType::Nat, Hook::Output),
                7 => (ChainType::Nat, Hook::Postrouting),
                _ => (ChainType::Route, Hook::Output),
            }
        };
        let policy = if seed.has_drop_policy { Policy::Drop } else { Policy::Accept };
        BaseChain { chain_type, hook, priority: i32::from(seed.base) - 150, policy }
    }
}

#[test]
fn random_tables_contain_all_expressions() {
    // The number of variants of `Expr`.
    let expected_kinds = 23;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut kinds = BTreeSet::new();
    for _ in 0..500 {
        let table = any_table_seed().new_tree(&mut runner).unwrap().current().build();
        for expr in table.chains.iter().flat_map(|chain| &chain.rules).flat_map(|rule| &rule.expressions) {
            let text = format!("{expr:?}");
            kinds.insert(text.split([' ', '(']).next().unwrap().to_owned());
        }
    }
    assert_eq!(kinds.len(), expected_kinds, "{kinds:?}");
}

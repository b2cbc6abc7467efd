//! A change has the same effects with the tables of all Services and with the tables of the necessary Services. Pure.

use std::collections::BTreeSet;

use akrobateo_agent::config::NodeConfig;
use akrobateo_agent::table::{NodeTables, reduce};
use netfilter::nft::model::{Element, Set};
use netfilter::nft::{Action, InstalledTable, Transaction, diff};

use crate::random::{Random, for_each_seed};
use crate::random_config::{change_config, empty_config};

const SEQUENCE_COUNT: u64 = 500;
const CHANGES_PER_SEQUENCE: usize = 40;

/// Returns the effect of each step of the transaction that changes the tables of `old_config` into the tables of `new`.
fn effects(old_config: &NodeConfig, new: &NodeConfig) -> BTreeSet<String> {
    let (old_config, new) = (NodeTables::new(old_config), NodeTables::new(new));
    let installed = InstalledTable::from(old_config.inet);
    let mut effects = action_effects(&diff(Some(&installed), &new.inet));
    effects.insert(format!("{:?} -> {:?}", old_config.netdev, new.netdev));
    effects
}

fn action_effects(transaction: &Transaction<'_>) -> BTreeSet<String> {
    let describe_elements = |kind: &str, set: &Set, elements: &[&Element]| -> Vec<String> {
        elements.iter().map(|element| format!("{kind} {} {element:?}", set.name)).collect()
    };
    let action_effects = |action: &Action<'_>| match action {
        Action::AddElements(set, elements) => describe_elements("add", set, elements),
        Action::DeleteElements(set, elements) => describe_elements("delete", set, elements),
        Action::CreateSet(set) => vec![format!("create {} {:?}", set.name, set.definition)],
        other => vec![format!("{other:?}")],
    };
    transaction.steps.iter().flat_map(|step| action_effects(&step.action)).collect()
}

#[test]
fn reduced_change_has_the_effects_of_the_whole_change() {
    let mut reduced_changes = 0;
    for_each_seed(SEQUENCE_COUNT, |seed| {
        let mut random = Random::new(seed);
        let mut config = empty_config();
        for _ in 0..CHANGES_PER_SEQUENCE {
            let old_config = config.clone();
            for _ in 0..=random.number_below(3) {
                change_config(&mut config, &mut random);
            }
            let Some((reduced_old, reduced_new)) = reduce(&old_config, &config) else { continue };
            reduced_changes += usize::from(reduced_new.services.len() < config.services.len());
            let (reduced, whole) = (effects(&reduced_old, &reduced_new), effects(&old_config, &config));
            let differences: Vec<_> = reduced.symmetric_difference(&whole).collect();
            assert!(differences.is_empty(), "{differences:#?}\n{old_config:?}\n{config:?}");
        }
    });
    assert!(reduced_changes > 0);
}

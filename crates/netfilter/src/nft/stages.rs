//! Splits a transaction into several ones, so that no packet meets an incomplete table. Pure.
//!
//! A packet makes several lookups one after the other. The kernel may execute a transaction between two of them. Then the
//! packet meets a new element with the old rules of its chain: a new chain is still empty for this packet. Or the packet
//! looks for an element that the transaction has deleted. Both would send the packet to the wrong destination.

use std::collections::{BTreeMap, BTreeSet};

use super::model::{Element, Matching, Set, TableId, Value};
use super::transaction::{Action, Step, Transaction};

/// The transactions that together do the same as one transaction. The kernel executes them in this order. Some may be empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stages<'a> {
    /// Adds the objects that no packet uses yet.
    pub additions: Transaction<'a>,
    /// Changes the objects that packets use.
    pub changes: Transaction<'a>,
    /// Deletes the objects that no packet uses any more.
    pub deletions: Transaction<'a>,
}

/// The kind of an object with a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum ObjectKind {
    Table,
    Set,
    Chain,
}

/// The objects of a transaction that decide in which stage a step is.
#[derive(Debug, Default)]
struct Objects<'a> {
    created_regular_chains: BTreeSet<(&'a TableId, &'a str)>,
    deleted_chains: BTreeSet<(&'a TableId, &'a str)>,
    flushed_sets: BTreeSet<(&'a TableId, &'a str)>,
    added_elements: BTreeMap<(&'a TableId, &'a str), Vec<&'a Element>>,
    deleted_elements: BTreeMap<(&'a TableId, &'a str), Vec<&'a Element>>,
}

impl<'a> Transaction<'a> {
    /// Returns true if the transaction deletes a table, a set or a chain, and creates another one with the same name.
    /// Packets may find neither of them meanwhile.
    #[must_use]
    pub fn recreates_objects(&self) -> bool {
        let deleted: BTreeSet<_> = self.steps.iter().filter_map(deleted_object).collect();
        self.steps.iter().filter_map(created_object).any(|object| deleted.contains(&object))
    }

    /// Splits the transaction. `must_be_last` returns true if packets that find an element of the set then look for
    /// elements of other sets. Such a set receives its new elements after all other sets.
    ///
    /// A transaction that [recreates objects](Self::recreates_objects) is not split.
    #[must_use]
    pub fn into_stages(self, must_be_last: impl Fn(&str) -> bool) -> Stages<'a> {
        if self.recreates_objects() {
            return Stages { changes: self, ..Stages::default() };
        }
        let objects = Objects::find(&self);
        let mut stages = Stages::default();
        for Step { table, action } in self.steps {
            let stage = match &action {
                Action::AddElements(set, elements) => {
                    let is_last =
                        must_be_last(&set.name) || objects.flushed_sets.contains(&(table, &*set.name));
                    let (changed, new) = split(table, set, elements, &objects.deleted_elements);
                    let (in_use, unused) =
                        if is_last { (elements.clone(), Vec::new()) } else { (changed, new) };
                    stages.additions.push_elements(table, set, unused);
                    stages.changes.push_elements(table, set, in_use);
                    continue;
                }
                Action::DeleteElements(set, elements) => {
                    let (changed, old) = split(table, set, elements, &objects.added_elements);
                    for (stage, elements) in [(&mut stages.changes, changed), (&mut stages.deletions, old)] {
                        if !elements.is_empty() {
                            stage.push(table, Action::DeleteElements(set, elements));
                        }
                    }
                    continue;
                }
                Action::CreateTable | Action::EnsureTable | Action::CreateSet(_) => &mut stages.additions,
                Action::CreateChain(chain) if chain.base.is_none() => &mut stages.additions,
                Action::AddRule(chain, _) if objects.created_regular_chains.contains(&(table, *chain)) => {
                    &mut stages.additions
                }
                Action::FlushChain(chain) if !objects.deleted_chains.contains(&(table, *chain)) => {
                    &mut stages.changes
                }
                Action::CreateChain(_) | Action::AddRule(..) | Action::SetPolicy(_) | Action::FlushSet(_) => {
                    &mut stages.changes
                }
                Action::DeleteTable
                | Action::FlushChain(_)
                | Action::DeleteSet(_)
                | Action::DeleteChain(_) => &mut stages.deletions,
            };
            stage.push(table, action);
        }
        stages
    }
}

impl<'a> Objects<'a> {
    fn find(transaction: &Transaction<'a>) -> Self {
        let mut objects = Self::default();
        for Step { table, action } in &transaction.steps {
            match action {
                Action::CreateChain(chain) if chain.base.is_none() => {
                    objects.created_regular_chains.insert((*table, &*chain.name));
                }
                Action::DeleteChain(chain) => _ = objects.deleted_chains.insert((*table, *chain)),
                Action::FlushSet(set) => _ = objects.flushed_sets.insert((*table, *set)),
                Action::AddElements(set, elements) => {
                    objects.added_elements.insert((*table, &*set.name), elements.clone());
                }
                Action::DeleteElements(set, elements) => {
                    objects.deleted_elements.insert((*table, &*set.name), elements.clone());
                }
                _ => {}
            }
        }
        objects
    }
}

/// Returns the elements that share keys with elements of the same set in `others`, and then the remaining elements.
///
/// The kernel rejects a new element while an old element has the same key or an overlapping interval. So the same
/// transaction must delete the old element and add the new element.
fn split<'a>(
    table: &'a TableId,
    set: &'a Set,
    elements: &[&'a Element],
    others: &BTreeMap<(&'a TableId, &'a str), Vec<&'a Element>>,
) -> (Vec<&'a Element>, Vec<&'a Element>) {
    let others = others.get(&(table, &*set.name)).map_or(&[][..], Vec::as_slice);
    let shares_keys = |element: &&&Element| match set.definition.matching {
        // The elements of a transaction are sorted.
        Matching::Exact => others.binary_search_by_key(&element.key, |other| other.key).is_ok(),
        Matching::Intervals | Matching::IntervalsOfParts(_) => {
            others.iter().any(|other| other.key <= last_key(element) && element.key <= last_key(other))
        }
    };
    elements.iter().partition(shares_keys)
}

/// Parts of a key are compared one after the other. So this may find two intervals that overlap in the first part only.
fn last_key(element: &Element) -> Value {
    element.last_key.as_deref().copied().unwrap_or(element.key)
}

fn created_object<'a>(step: &Step<'a>) -> Option<(&'a TableId, ObjectKind, &'a str)> {
    match &step.action {
        Action::CreateTable => Some((step.table, ObjectKind::Table, "")),
        Action::CreateSet(set) => Some((step.table, ObjectKind::Set, &set.name)),
        Action::CreateChain(chain) => Some((step.table, ObjectKind::Chain, &chain.name)),
        _ => None,
    }
}

fn deleted_object<'a>(step: &Step<'a>) -> Option<(&'a TableId, ObjectKind, &'a str)> {
    match &step.action {
        Action::DeleteTable => Some((step.table, ObjectKind::Table, "")),
        Action::DeleteSet(set) => Some((step.table, ObjectKind::Set, set)),
        Action::DeleteChain(chain) => Some((step.table, ObjectKind::Chain, chain)),
        _ => None,
    }
}

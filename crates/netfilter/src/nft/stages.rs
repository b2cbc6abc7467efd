//! Splits a transaction into several transactions, so that each packet is handled by a complete table. Pure.
//!
//! The kernel makes several lookups for one packet, and may execute a transaction between two of these lookups. Two
//! cases would send the packet to a wrong destination. In the first case, the packet finds a new element, but the new
//! chain of this element is still empty for the packet. In the second case, the transaction has deleted an element that
//! the packet still needs.

use std::collections::{BTreeMap, BTreeSet};

use super::model::{Element, KeyMatching, Set, TableId, Value};
use super::transaction::{Action, Step, Transaction};

/// The parts of one transaction, which have together the same effect as the transaction. The kernel executes the parts
/// in the order of the fields. A part may be empty.
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

/// The objects that a transaction creates or deletes. These objects determine the stage of each step.
#[derive(Debug, Default)]
struct ChangedObjects<'a> {
    created_regular_chains: BTreeSet<(&'a TableId, &'a str)>,
    deleted_chains: BTreeSet<(&'a TableId, &'a str)>,
    flushed_sets: BTreeSet<(&'a TableId, &'a str)>,
    added_elements: BTreeMap<(&'a TableId, &'a str), Vec<&'a Element>>,
    deleted_elements: BTreeMap<(&'a TableId, &'a str), Vec<&'a Element>>,
}

impl<'a> Transaction<'a> {
    /// Returns true if the transaction deletes a table, set or chain, and creates it again under the same name. While
    /// the kernel executes this transaction, packets may miss both the old and the new object.
    #[must_use]
    pub fn recreates_objects(&self) -> bool {
        let deleted_objects: BTreeSet<_> = self.steps.iter().filter_map(deleted_object).collect();
        self.steps.iter().filter_map(created_object).any(|object| deleted_objects.contains(&object))
    }

    /// Splits the transaction. `must_be_last` returns true for a set whose elements lead packets to lookups in other
    /// sets. These sets receive their new elements after all other sets.
    ///
    /// A transaction that [recreates objects](Self::recreates_objects) is not split.
    #[must_use]
    pub fn into_stages(self, must_be_last: impl Fn(&str) -> bool) -> Stages<'a> {
        if self.recreates_objects() {
            return Stages { changes: self, ..Stages::default() };
        }
        let objects = ChangedObjects::find(&self);
        let mut stages = Stages::default();
        for Step { table, action } in self.steps {
            let stage = match &action {
                Action::AddElements(set, elements) => {
                    let is_added_last =
                        must_be_last(&set.name) || objects.flushed_sets.contains(&(table, &*set.name));
                    let (changed_elements, new_elements) =
                        partition_by_shared_keys(table, set, elements, &objects.deleted_elements);
                    let (elements_in_use, unused_elements) = if is_added_last {
                        (elements.clone(), Vec::new())
                    } else {
                        (changed_elements, new_elements)
                    };
                    stages.additions.push_elements(table, set, unused_elements);
                    stages.changes.push_elements(table, set, elements_in_use);
                    continue;
                }
                Action::DeleteElements(set, elements) => {
                    let (changed_elements, old_elements) =
                        partition_by_shared_keys(table, set, elements, &objects.added_elements);
                    for (stage, elements) in
                        [(&mut stages.changes, changed_elements), (&mut stages.deletions, old_elements)]
                    {
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

impl<'a> ChangedObjects<'a> {
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

/// Returns two lists of elements. The elements of the first list share keys with elements of the same set in
/// `other_elements`. The second list has all other elements.
///
/// The kernel rejects a new element while an old element has the same key or an overlapping interval. The same
/// transaction must therefore delete the old element and add the new element.
fn partition_by_shared_keys<'a>(
    table: &'a TableId,
    set: &'a Set,
    elements: &[&'a Element],
    other_elements: &BTreeMap<(&'a TableId, &'a str), Vec<&'a Element>>,
) -> (Vec<&'a Element>, Vec<&'a Element>) {
    let other_elements = other_elements.get(&(table, &*set.name)).map_or(&[][..], Vec::as_slice);
    let shares_keys = |element: &&&Element| match set.definition.matching {
        // The elements of a transaction are sorted.
        KeyMatching::Exact => other_elements.binary_search_by_key(&element.key, |other| other.key).is_ok(),
        KeyMatching::Intervals | KeyMatching::IntervalsOfParts(_) => other_elements
            .iter()
            .any(|other| other.key <= last_key(element) && element.key <= last_key(other)),
    };
    elements.iter().partition(shares_keys)
}

/// Returns the highest key of an element. The comparison of two keys compares their parts one after the other. Two
/// intervals therefore count as overlapping even if only the first parts of their keys overlap.
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

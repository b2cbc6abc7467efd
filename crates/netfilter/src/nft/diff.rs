//! Finds the transaction that changes the kernel's table into the desired table. Pure.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use super::installed::{ForeignObject, InstalledTable};
use super::model::{BaseChain, Chain, Element, Expr, Set, Table};
use super::transaction::{Action, Transaction};

/// Returns the transaction that changes the kernel's table into `desired`; `None` for `installed` means that the kernel
/// does not have the table. The transaction is empty if there is no difference.
///
/// The transaction changes as little as possible, so that packets find all elements and rules during the change:
/// - Elements are added and deleted in place. A set is created again if its definition has changed.
/// - A chain whose rules have changed is flushed and filled again.
/// - Counters and the elements of dynamic sets are not changed, because packets change them.
///
/// If another program has set a flag of the table, packets do not pass the table. If the kernel would then reject the
/// change of the table, the transaction deletes the table and creates it again.
///
/// Both tables have the same family and name.
#[must_use]
pub fn diff<'a>(installed: Option<&'a InstalledTable>, desired: &'a Table) -> Transaction<'a> {
    match installed {
        Some(installed) => {
            let diff = Diff::new(installed, desired);
            if diff.clears_table_flag() && diff.creates_base_chain() {
                return Transaction::delete(&desired.id).then(Transaction::create(desired));
            }
            diff.into_transaction()
        }
        None => Transaction::create(desired),
    }
}

/// The names of the objects that differ.
struct Diff<'a> {
    installed: &'a InstalledTable,
    desired: &'a Table,
    /// The sets to delete. The transaction creates some of these sets again.
    deleted_sets: BTreeSet<&'a str>,
    /// The chains to delete. The transaction creates some of these chains again.
    deleted_chains: BTreeSet<&'a str>,
    /// The installed chains whose rules are deleted. The transaction adds new rules to some of these chains.
    flushed_chains: BTreeSet<&'a str>,
    /// The sets with elements that this crate cannot describe. The transaction deletes all elements of such a set, and
    /// adds the desired elements.
    flushed_sets: BTreeSet<&'a str>,
}

impl<'a> Diff<'a> {
    fn new(installed: &'a InstalledTable, desired: &'a Table) -> Self {
        let mut diff = Self {
            installed,
            desired,
            deleted_sets: find_deleted_sets(&installed.table, desired),
            deleted_chains: find_deleted_chains(&installed.table, desired),
            flushed_chains: BTreeSet::new(),
            flushed_sets: BTreeSet::new(),
        };
        for object in &installed.foreign_objects {
            match object {
                ForeignObject::TableFlag => {}
                ForeignObject::Set(name) => _ = diff.deleted_sets.insert(name),
                ForeignObject::Chain(name) => _ = diff.deleted_chains.insert(name),
                ForeignObject::RuleInChain(name) => _ = diff.flushed_chains.insert(name),
                ForeignObject::ElementOfSet(name) => _ = diff.flushed_sets.insert(name),
            }
        }
        diff.flushed_chains.extend(&diff.deleted_chains);
        let must_flush = |chain: &&Chain| match desired.chain(&chain.name) {
            Some(desired_chain) => {
                !chain.has_equal_rules(desired_chain) || diff.uses_deleted_object(desired_chain)
            }
            None => true,
        };
        let flushed_chains: Vec<_> =
            installed.table.chains.iter().filter(must_flush).map(|chain| &*chain.name).collect();
        diff.flushed_chains.extend(flushed_chains);
        // An unknown element of a dynamic set is ignored, because the transaction does not change the elements of
        // dynamic sets.
        let is_dynamic =
            |name: &str| installed.table.set(name).is_some_and(|set| set.definition.dynamic.is_some());
        let deleted_sets = &diff.deleted_sets;
        diff.flushed_sets.retain(|name| !deleted_sets.contains(name) && !is_dynamic(name));
        diff
    }

    /// Returns true if the rules of a chain use a set or chain that is deleted and created again.
    fn uses_deleted_object(&self, chain: &Chain) -> bool {
        let uses_deleted_object = |expr: &Expr| {
            expr.set_name().is_some_and(|set| self.deleted_sets.contains(&**set))
                || expr.target_chain().is_some_and(|chain| self.deleted_chains.contains(&**chain))
        };
        chain.rules.iter().flat_map(|rule| &rule.expressions).any(uses_deleted_object)
    }

    /// Returns the steps in an order that the kernel allows. An object is created before other objects refer to it, and
    /// is deleted after the last reference to the object. If an object is created again, the deletion precedes the
    /// creation.
    fn into_transaction(self) -> Transaction<'a> {
        let Self { installed, desired, .. } = self;
        let table = &desired.id;
        let mut transaction = Transaction::default();
        if self.clears_table_flag() {
            transaction.push(table, Action::EnsureTable);
        }
        let is_new_set =
            |set: &Set| installed.table.set(&set.name).is_none() && !self.deleted_sets.contains(&*set.name);
        let is_new_chain = |chain: &Chain| self.is_new_chain(chain);
        let new_sets = desired.sets.iter().filter(|set| is_new_set(set));
        new_sets.for_each(|set| transaction.push(table, Action::CreateSet(set)));
        let new_chains = desired.chains.iter().filter(|chain| is_new_chain(chain));
        new_chains.for_each(|chain| transaction.push(table, Action::CreateChain(chain)));
        for chain in desired.chains.iter().filter(|chain| self.has_other_policy(chain)) {
            transaction.push(table, Action::SetPolicy(chain));
        }
        for name in &self.flushed_chains {
            transaction.push(table, Action::FlushChain(name));
        }
        let mut added_elements = Vec::new();
        for set in &desired.sets {
            let (deleted, added) = self.diff_elements(set);
            if self.flushed_sets.contains(&*set.name) {
                transaction.push(table, Action::FlushSet(&set.name));
            } else if !deleted.is_empty() {
                transaction.push(table, Action::DeleteElements(set, deleted));
            }
            added_elements.push((set, added));
        }
        for name in &self.deleted_sets {
            transaction.push(table, Action::DeleteSet(name));
        }
        for name in &self.deleted_chains {
            transaction.push(table, Action::DeleteChain(name));
        }
        let is_deleted_set = |set: &&Set| self.deleted_sets.contains(&*set.name);
        let recreated_objects = desired.sets.iter().filter(is_deleted_set);
        recreated_objects.for_each(|set| transaction.push(table, Action::CreateSet(set)));
        let is_deleted_chain = |chain: &&Chain| self.deleted_chains.contains(&*chain.name);
        let recreated_objects = desired.chains.iter().filter(is_deleted_chain);
        recreated_objects.for_each(|chain| transaction.push(table, Action::CreateChain(chain)));
        for (set, elements) in added_elements {
            transaction.push_elements(table, set, elements);
        }
        for chain in &desired.chains {
            if is_new_chain(chain) || self.flushed_chains.contains(&*chain.name) {
                transaction.push_rules(table, chain);
            }
        }
        transaction
    }

    fn clears_table_flag(&self) -> bool {
        self.installed.foreign_objects.contains(&ForeignObject::TableFlag)
    }

    /// The kernel rejects new base chains in a transaction that clears a flag of the table.
    fn creates_base_chain(&self) -> bool {
        let is_created =
            |chain: &Chain| self.is_new_chain(chain) || self.deleted_chains.contains(&*chain.name);
        self.desired.chains.iter().any(|chain| chain.base.is_some() && is_created(chain))
    }

    /// Returns true if the installed table has no chain of this name.
    fn is_new_chain(&self, chain: &Chain) -> bool {
        self.installed.table.chain(&chain.name).is_none() && !self.deleted_chains.contains(&*chain.name)
    }

    fn has_other_policy(&self, desired: &Chain) -> bool {
        let policy = |base: &Option<BaseChain>| base.as_ref().map(|base| base.policy);
        !self.deleted_chains.contains(&*desired.name)
            && self
                .installed
                .table
                .chain(&desired.name)
                .is_some_and(|installed| policy(&installed.base) != policy(&desired.base))
    }

    /// Returns the elements to delete and the elements to add. A changed element is in both lists.
    fn diff_elements(&self, desired: &'a Set) -> (Vec<&'a Element>, Vec<&'a Element>) {
        let is_kept =
            !self.deleted_sets.contains(&*desired.name) && !self.flushed_sets.contains(&*desired.name);
        match self.installed.table.set(&desired.name).filter(|_| is_kept) {
            // Packets add the elements of dynamic sets.
            Some(_) if desired.definition.dynamic.is_some() => (Vec::new(), Vec::new()),
            Some(installed) => diff_sorted_elements(&installed.elements, &desired.elements, |element| {
                element.target_chain().is_some_and(|chain| self.deleted_chains.contains(&**chain))
            }),
            None => (Vec::new(), desired.elements.iter().collect()),
        }
    }
}

/// Returns the sets to delete: undesired sets, and sets whose definition changes.
fn find_deleted_sets<'a>(installed: &'a Table, desired: &Table) -> BTreeSet<&'a str> {
    let must_delete = |set: &&Set| {
        !desired
            .set(&set.name)
            .is_some_and(|desired| set.definition.equals_ignoring_counters(&desired.definition))
    };
    installed.sets.iter().filter(must_delete).map(|set| &*set.name).collect()
}

/// Returns the chains to delete: undesired chains, and chains whose hook, type or priority changes.
fn find_deleted_chains<'a>(installed: &'a Table, desired: &Table) -> BTreeSet<&'a str> {
    let must_delete = |chain: &&Chain| match desired.chain(&chain.name) {
        None => true,
        Some(desired) => match (&chain.base, &desired.base) {
            (None, None) => false,
            (Some(base), Some(desired)) => BaseChain { policy: desired.policy, ..base.clone() } != *desired,
            _ => true,
        },
    };
    installed.chains.iter().filter(must_delete).map(|chain| &*chain.name).collect()
}

/// Compares two sorted lists. Returns the elements to delete and the elements to add. An element for which
/// `must_change` returns true is in both lists, even if the two elements are equal.
fn diff_sorted_elements<'a>(
    installed: &'a [Element],
    desired: &'a [Element],
    must_change: impl Fn(&Element) -> bool,
) -> (Vec<&'a Element>, Vec<&'a Element>) {
    let (mut deleted, mut added) = (Vec::new(), Vec::new());
    let (mut installed, mut desired) = (installed.iter().peekable(), desired.iter().peekable());
    loop {
        let order = match (installed.peek(), desired.peek()) {
            (Some(old_element), Some(new_element)) => old_element.key.cmp(&new_element.key),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => return (deleted, added),
        };
        let old_element = if order == Ordering::Greater { None } else { installed.next() };
        let new_element = if order == Ordering::Less { None } else { desired.next() };
        if let (Some(old_element), Some(new_element)) = (old_element, new_element)
            && old_element.equals_ignoring_state(new_element)
            && !must_change(new_element)
        {
            continue;
        }
        deleted.extend(old_element);
        added.extend(new_element);
    }
}

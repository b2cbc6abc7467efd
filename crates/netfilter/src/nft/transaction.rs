//! A transaction as a value: the steps that the kernel executes together, or not at all. Pure.

use std::fmt;

use super::model::{Chain, Element, Rule, Set, Table, TableId};

/// The steps that the kernel executes together, or not at all. The steps may belong to several tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction<'a> {
    /// The steps, in the order of their execution. A step can use objects that earlier steps create.
    pub steps: Vec<Step<'a>>,
}

/// A step of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step<'a> {
    /// The table that the step changes.
    pub table: &'a TableId,
    /// The change.
    pub action: Action<'a>,
}

/// A change of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action<'a> {
    /// Creates the table without content. Fails if the table exists.
    CreateTable,
    /// Creates the table if it does not exist. Clears the flags of an existing table, so that the table is not dormant.
    EnsureTable,
    /// Deletes the table with its content.
    DeleteTable,
    /// Creates the set without elements.
    CreateSet(&'a Set),
    /// Deletes the set of this name with its elements. Fails if a rule uses the set.
    DeleteSet(&'a str),
    /// Deletes all elements of the set of this name.
    FlushSet(&'a str),
    /// Adds elements to the set. Fails if an element with the same key and a different value exists.
    AddElements(&'a Set, Vec<&'a Element>),
    /// Deletes elements of the set. Fails if one of the elements does not exist.
    DeleteElements(&'a Set, Vec<&'a Element>),
    /// Creates the chain without rules.
    CreateChain(&'a Chain),
    /// Changes the policy of the base chain.
    SetPolicy(&'a Chain),
    /// Deletes the chain of this name. Fails if the chain has rules, or if a rule or an element uses the chain.
    DeleteChain(&'a str),
    /// Deletes all rules of the chain of this name.
    FlushChain(&'a str),
    /// Adds a rule at the end of the chain of this name.
    AddRule(&'a str, &'a Rule),
}

/// The number of steps for which memory is allocated at first. The allocator keeps a smaller block after the block is
/// freed, and this block prevents the allocator from returning the memory of a table to the system.
const MIN_STEP_CAPACITY: usize = 64;

impl Default for Transaction<'_> {
    fn default() -> Self {
        Self { steps: Vec::with_capacity(MIN_STEP_CAPACITY) }
    }
}

impl<'a> Transaction<'a> {
    /// Returns the transaction that creates the table with its content. The transaction fails if the table exists.
    #[must_use]
    pub fn create(table: &'a Table) -> Self {
        let mut transaction = Self::default();
        transaction.push(&table.id, Action::CreateTable);
        transaction.push_content(table);
        transaction
    }

    /// Returns the transaction that deletes the table, which must exist.
    #[must_use]
    pub fn delete(table: &'a TableId) -> Self {
        let mut transaction = Self::default();
        transaction.push(table, Action::DeleteTable);
        transaction
    }

    /// Returns the transaction that replaces the table of the same family and name, or creates it.
    ///
    /// While the kernel executes the transaction, lookups in maps and in sets with intervals may find nothing, and
    /// flows may break. [`diff`](super::diff::diff) changes a table without this effect.
    #[must_use]
    pub fn replace(table: &'a Table) -> Self {
        let mut transaction = Self::default();
        // The table is created first, because the deletion of a missing table would fail.
        transaction.push(&table.id, Action::EnsureTable);
        transaction.push(&table.id, Action::DeleteTable);
        transaction.push(&table.id, Action::CreateTable);
        transaction.push_content(table);
        transaction
    }

    /// Returns the transaction that executes the steps of both transactions.
    #[must_use]
    pub fn then(mut self, mut other: Self) -> Self {
        self.steps.append(&mut other.steps);
        self
    }

    /// Adds a step.
    pub fn push(&mut self, table: &'a TableId, action: Action<'a>) {
        self.steps.push(Step { table, action });
    }

    /// Returns true if the transaction changes nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Adds the steps that create the content of a table. Chains are created before the elements that refer to them.
    fn push_content(&mut self, table: &'a Table) {
        let id = &table.id;
        table.sets.iter().for_each(|set| self.push(id, Action::CreateSet(set)));
        table.chains.iter().for_each(|chain| self.push(id, Action::CreateChain(chain)));
        for set in &table.sets {
            self.push_elements(id, set, set.elements.iter().collect());
        }
        table.chains.iter().for_each(|chain| self.push_rules(id, chain));
    }

    /// Adds the step that adds the elements. Adds nothing if there are no elements.
    pub(super) fn push_elements(&mut self, table: &'a TableId, set: &'a Set, elements: Vec<&'a Element>) {
        if !elements.is_empty() {
            self.push(table, Action::AddElements(set, elements));
        }
    }

    /// Adds the steps that add all rules of a chain.
    pub(super) fn push_rules(&mut self, table: &'a TableId, chain: &'a Chain) {
        chain.rules.iter().for_each(|rule| self.push(table, Action::AddRule(&chain.name, rule)));
    }
}

/// Describes the step for an error message, for example `create the set services4 of the table inet akrobateo`.
impl fmt::Display for Step<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let table = self.table;
        match &self.action {
            Action::CreateTable | Action::EnsureTable => write!(f, "create the table {table}"),
            Action::DeleteTable => write!(f, "delete the table {table}"),
            Action::CreateSet(set) => write!(f, "create the set {} of the table {table}", set.name),
            Action::DeleteSet(set) => write!(f, "delete the set {set} of the table {table}"),
            Action::FlushSet(set) => write!(f, "flush the set {set} of the table {table}"),
            Action::AddElements(set, elements) => {
                write!(f, "add {} elements to the set {} of the table {table}", elements.len(), set.name)
            }
            Action::DeleteElements(set, elements) => {
                write!(f, "delete {} elements of the set {} of the table {table}", elements.len(), set.name)
            }
            Action::CreateChain(chain) => write!(f, "create the chain {} of the table {table}", chain.name),
            Action::SetPolicy(chain) => {
                write!(f, "set the policy of the chain {} of the table {table}", chain.name)
            }
            Action::DeleteChain(chain) => write!(f, "delete the chain {chain} of the table {table}"),
            Action::FlushChain(chain) => write!(f, "flush the chain {chain} of the table {table}"),
            Action::AddRule(chain, _) => write!(f, "add a rule to the chain {chain} of the table {table}"),
        }
    }
}

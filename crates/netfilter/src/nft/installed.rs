//! A table as the kernel lists it. Pure.

use super::model::{Name, Table};

/// A table as the kernel lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstalledTable {
    /// The objects that this crate can describe.
    pub table: Table,
    /// The objects that this crate cannot describe. Another program has created these objects.
    pub foreign_objects: Vec<ForeignObject>,
}

/// An object that this crate cannot describe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ForeignObject {
    /// A flag of the table: `NFT_TABLE_F_DORMANT` or `NFT_TABLE_F_OWNER`.
    TableFlag,
    /// A set that [`SetDefinition`](super::model::SetDefinition) cannot describe.
    Set(Name),
    /// A chain that [`BaseChain`](super::model::BaseChain) cannot describe.
    Chain(Name),
    /// A rule in this chain, with an expression that [`Expr`](super::model::Expr) cannot describe. The table contains
    /// the other rules of the chain.
    RuleInChain(Name),
    /// An element of this set that [`Element`](super::model::Element) cannot describe. The table contains the other
    /// elements of the set.
    ElementOfSet(Name),
}

impl From<Table> for InstalledTable {
    fn from(table: Table) -> Self {
        Self { table, foreign_objects: Vec::new() }
    }
}

impl InstalledTable {
    /// Returns true if the kernel handles packets as described by `desired`, and the table has no foreign object.
    #[must_use]
    pub fn equals_ignoring_state(&self, desired: &Table) -> bool {
        self.foreign_objects.is_empty() && self.table.equals_ignoring_state(desired)
    }
}

//! The tables in the kernel, and the transactions that change them. Pure.

use netfilter::nft::{Action, InstalledTable, Table, Transaction, diff};

use super::former_elements::FormerElements;
use crate::config::NodeConfig;
use crate::table::{NodeTables, reduce};

/// The kernel's tables of families inet and netdev with the same name.
#[derive(Debug, Default)]
pub(super) struct InstalledTables {
    pub(super) inet: Option<InstalledTable>,
    pub(super) netdev: Option<InstalledTable>,
}

impl InstalledTables {
    pub(super) fn is_empty(&self) -> bool {
        self.inet.is_none() && self.netdev.is_none()
    }

    /// Returns the transaction that changes the tables into the desired tables.
    pub(super) fn diff<'a>(&'a self, desired: &'a NodeTables) -> Transaction<'a> {
        let netdev = match (&self.netdev, &desired.netdev) {
            (installed, Some(desired)) => diff(installed.as_ref(), desired),
            (Some(installed), None) => Transaction::delete(&installed.table.id),
            (None, None) => Transaction::default(),
        };
        diff(self.inet.as_ref(), &desired.inet).then(netdev)
    }

    /// Returns the transaction that deletes the tables. The transaction first flushes the base chains. When the kernel
    /// deletes a table, it deletes the elements of the sets before it removes the base chains from the hooks. Without
    /// the flush, packets could pass rules whose sets are already empty.
    pub(super) fn deletion_transaction(&self) -> Transaction<'_> {
        let mut transaction = Transaction::default();
        for installed in [&self.inet, &self.netdev].into_iter().flatten() {
            let table = &installed.table;
            for chain in table.chains.iter().filter(|chain| chain.base.is_some()) {
                transaction.push(&table.id, Action::FlushChain(&chain.name));
            }
            transaction.push(&table.id, Action::DeleteTable);
        }
        transaction
    }
}

impl From<NodeTables> for InstalledTables {
    fn from(tables: NodeTables) -> Self {
        Self { inet: Some(tables.inet.into()), netdev: tables.netdev.map(Into::into) }
    }
}

/// The tables before and after a change.
#[derive(Debug)]
pub(super) struct TableChange {
    pub(super) installed: InstalledTables,
    pub(super) desired: NodeTables,
    /// True if unchanged Services are missing in the tables.
    pub(super) is_partial: bool,
    /// True if flows of earlier rules may exist that a comparison of the two tables does not find.
    pub(super) checks_leftovers: bool,
}

impl TableChange {
    /// Returns the change from the installed tables to the desired tables.
    pub(super) const fn new(installed: InstalledTables, desired: NodeTables) -> Self {
        Self { installed, desired, is_partial: false, checks_leftovers: false }
    }

    /// Returns the change from the tables of one configuration to the tables of another. If possible, the tables lack
    /// the Services that do not affect the change. The kernel's tables also contain `former_elements`.
    pub(super) fn between(old: &NodeConfig, new: &NodeConfig, former_elements: &[FormerElements]) -> Self {
        let partial_change = reduce(old, new).map(|(old, new)| Self {
            is_partial: true,
            ..Self::between_complete_tables(&old, &new, former_elements)
        });
        // The replacement of a table needs all elements of the table.
        let partial_change = partial_change.filter(|change| !change.transaction().recreates_objects());
        partial_change.unwrap_or_else(|| Self::between_complete_tables(old, new, former_elements))
    }

    /// Returns the change from the tables of one configuration to the tables of another, with all Services. The
    /// kernel's tables also contain `former_elements`.
    pub(super) fn between_complete_tables(
        old: &NodeConfig,
        new: &NodeConfig,
        former_elements: &[FormerElements],
    ) -> Self {
        let mut installed = NodeTables::new(old);
        for elements in former_elements {
            elements.add_to(&mut installed.inet);
        }
        Self::new(installed.into(), NodeTables::new(new))
    }

    /// Returns the transaction that makes the change.
    pub(super) fn transaction(&self) -> Transaction<'_> {
        self.installed.diff(&self.desired)
    }

    /// Returns the table of family inet before the change.
    pub(super) fn installed_table(&self) -> Option<&Table> {
        self.installed.inet.as_ref().map(|installed| &installed.table)
    }
}

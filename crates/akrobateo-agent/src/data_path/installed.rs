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
    pub(super) fn diff<'a>(&'a self, desired_tables: &'a NodeTables) -> Transaction<'a> {
        let netdev = match (&self.netdev, &desired_tables.netdev) {
            (installed_table, Some(desired_table)) => diff(installed_table.as_ref(), desired_table),
            (Some(installed_table), None) => Transaction::delete(&installed_table.table.id),
            (None, None) => Transaction::default(),
        };
        diff(self.inet.as_ref(), &desired_tables.inet).then(netdev)
    }

    /// Returns the transaction that deletes the tables. The transaction first flushes the base chains. When the kernel
    /// deletes a table, it deletes the elements of the sets before it removes the base chains from the hooks. Without
    /// the flush, packets could pass rules whose sets are already empty.
    pub(super) fn deletion_transaction(&self) -> Transaction<'_> {
        let mut transaction = Transaction::default();
        for installed_table in [&self.inet, &self.netdev].into_iter().flatten() {
            let table = &installed_table.table;
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
    pub(super) installed_tables: InstalledTables,
    pub(super) desired_tables: NodeTables,
    /// True if unchanged Services are missing in the tables.
    pub(super) is_partial: bool,
    /// True if flows of earlier rules may exist that a comparison of the two tables does not find.
    pub(super) checks_leftover_flows: bool,
}

impl TableChange {
    /// Returns the change from the installed tables to the desired tables.
    pub(super) const fn new(installed_tables: InstalledTables, desired_tables: NodeTables) -> Self {
        Self { installed_tables, desired_tables, is_partial: false, checks_leftover_flows: false }
    }

    /// Returns the change from the tables of the old configuration to the tables of the new configuration. If possible,
    /// the tables lack the Services that do not affect the change. The kernel's tables also contain `former_elements`.
    pub(super) fn between(
        old_config: &NodeConfig,
        new_config: &NodeConfig,
        former_elements: &[FormerElements],
    ) -> Self {
        let partial_change = reduce(old_config, new_config).map(|(old_config, new_config)| Self {
            is_partial: true,
            ..Self::between_complete_tables(&old_config, &new_config, former_elements)
        });
        // The replacement of a table needs all elements of the table.
        let partial_change = partial_change.filter(|change| !change.transaction().recreates_objects());
        partial_change
            .unwrap_or_else(|| Self::between_complete_tables(old_config, new_config, former_elements))
    }

    /// Returns the change from the tables of the old configuration to the tables of the new configuration, with all
    /// Services. The kernel's tables also contain `former_elements`.
    pub(super) fn between_complete_tables(
        old_config: &NodeConfig,
        new_config: &NodeConfig,
        former_elements: &[FormerElements],
    ) -> Self {
        let mut installed_tables = NodeTables::new(old_config);
        for elements in former_elements {
            elements.add_to(&mut installed_tables.inet);
        }
        Self::new(installed_tables.into(), NodeTables::new(new_config))
    }

    /// Returns the transaction that makes the change.
    pub(super) fn transaction(&self) -> Transaction<'_> {
        self.installed_tables.diff(&self.desired_tables)
    }

    /// Returns the table of family inet before the change.
    pub(super) fn installed_table(&self) -> Option<&Table> {
        self.installed_tables.inet.as_ref().map(|installed_table| &installed_table.table)
    }
}

//! The tables in the kernel, and the transactions that change them. Pure.

use netfilter::nft::{Action, InstalledTable, Table, Transaction, diff};

use super::former_elements::FormerElements;
use crate::config::NodeConfig;
use crate::table::{NodeTables, reduce};

/// The tables in the kernel that have the same name.
#[derive(Debug, Default)]
pub(super) struct Installed {
    pub(super) inet: Option<InstalledTable>,
    pub(super) netdev: Option<InstalledTable>,
}

impl Installed {
    pub(super) fn is_empty(&self) -> bool {
        self.inet.is_none() && self.netdev.is_none()
    }

    /// Returns the transaction that changes the tables into the desired ones.
    pub(super) fn diff<'a>(&'a self, desired: &'a NodeTables) -> Transaction<'a> {
        let netdev = match (&self.netdev, &desired.netdev) {
            (installed, Some(desired)) => diff(installed.as_ref(), desired),
            (Some(installed), None) => Transaction::delete(&installed.table.id),
            (None, None) => Transaction::default(),
        };
        diff(self.inet.as_ref(), &desired.inet).then(netdev)
    }

    /// Returns the transaction that deletes the tables. The transaction first flushes the base chains. When the kernel
    /// deletes a table, it deletes the elements of the sets before it removes the base chains from the hooks. Without the
    /// flush, packets would meanwhile pass rules that find no elements.
    pub(super) fn deletion(&self) -> Transaction<'_> {
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

impl From<NodeTables> for Installed {
    fn from(tables: NodeTables) -> Self {
        Self { inet: Some(tables.inet.into()), netdev: tables.netdev.map(Into::into) }
    }
}

/// The tables before and after a change.
#[derive(Debug)]
pub(super) struct TableChange {
    pub(super) installed: Installed,
    pub(super) desired: NodeTables,
    /// True if the tables lack the elements of Services that do not change.
    pub(super) is_partial: bool,
    /// True if the tables do not show all flows of earlier rules.
    pub(super) checks_leftovers: bool,
}

impl TableChange {
    /// Returns the change of all tables.
    pub(super) const fn new(installed: Installed, desired: NodeTables) -> Self {
        Self { installed, desired, is_partial: false, checks_leftovers: false }
    }

    /// Returns the change from the tables of one configuration to those of another, and only of the necessary parts.
    /// `former` are the elements of former endpoints that are in the kernel, too.
    pub(super) fn between(old: &NodeConfig, new: &NodeConfig, former: &[FormerElements]) -> Self {
        let partial =
            reduce(old, new).map(|(old, new)| Self { is_partial: true, ..Self::of_all(&old, &new, former) });
        // The replacement of a table needs all of its elements.
        let partial = partial.filter(|change| !change.transaction().recreates_objects());
        partial.unwrap_or_else(|| Self::of_all(old, new, former))
    }

    /// Returns the change from all tables of one configuration to those of another.
    pub(super) fn of_all(old: &NodeConfig, new: &NodeConfig, former: &[FormerElements]) -> Self {
        let mut installed = NodeTables::new(old);
        for former in former {
            former.add_to(&mut installed.inet);
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

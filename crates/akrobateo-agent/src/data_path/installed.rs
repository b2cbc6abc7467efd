//! The tables in the kernel, and the transactions that change them. Pure.

use netfilter::nft::{Action, InstalledTable, Transaction, diff};

use crate::table::NodeTables;

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

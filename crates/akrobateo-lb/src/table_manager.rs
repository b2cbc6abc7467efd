//! Installs the table of a forwarding configuration in the kernel, checks it and restores it. Does I/O.

use std::cell::Cell;

use akrobateo_core::Frontend;
use netfilter::conntrack::Conntrack;
use netfilter::nft::client::Nftables;
use netfilter::nft::{InstalledTable, NftError, Table};

use crate::forwarding_config::ForwardingConfig;
use crate::ruleset::{self, Traffic};
use crate::stale_flows::is_stale;

/// Manages the nftables table of a proxy.
#[derive(Debug)]
pub struct TableManager {
    config: ForwardingConfig,
    nftables: Nftables,
    conntrack: Conntrack,
    /// The generation of the kernel's ruleset at the last check that found the desired table.
    in_sync_ruleset_generation: Cell<Option<u32>>,
}

/// A difference between the kernel's table and the desired table.
struct Drift {
    desired_table: Table,
    /// The kernel's table; `None` if the table is missing.
    installed_table: Option<InstalledTable>,
    /// The generation of the kernel's ruleset to which `installed_table` belongs.
    ruleset_generation: u32,
}

impl TableManager {
    /// Installs the table of `config` in this thread's network namespace. If the kernel already has an equal table,
    /// keeps that table. Replaces a different table of the same name.
    pub fn install(config: ForwardingConfig) -> Result<Self, NftError> {
        let (nftables, conntrack) = (Nftables::open()?, Conntrack::open()?);
        let manager = Self { config, nftables, conntrack, in_sync_ruleset_generation: Cell::new(None) };
        // An equal table stays, because a replacement may drop packets: for some microseconds, lookups in a new
        // interval set may find nothing.
        if !manager.restore()? {
            manager.delete_stale_flows();
        }
        Ok(manager)
    }

    /// Returns the configuration whose table is installed.
    #[must_use]
    pub fn config(&self) -> &ForwardingConfig {
        &self.config
    }

    /// Returns the conntrack client.
    #[must_use]
    pub fn conntrack(&self) -> &Conntrack {
        &self.conntrack
    }

    /// Returns true if the kernel has the desired table now.
    pub fn is_in_sync(&self) -> Result<bool, NftError> {
        Ok(self.find_drift()?.is_none())
    }

    /// Replaces the kernel's table if it differs from the desired table. Returns true if the table was replaced.
    pub fn restore(&self) -> Result<bool, NftError> {
        match self.find_drift()? {
            Some(drift) => self.replace_table(drift).map(|()| true),
            None => Ok(false),
        }
    }

    /// Deletes conntrack entries that contradict the rules. The kernel consults the nat rules only for the first packet
    /// of a flow. Logs an error and continues, because the rules forward new flows in any case.
    pub fn delete_stale_flows(&self) {
        match self.conntrack.delete_stale_entries(|flow| is_stale(flow, &self.config)) {
            Ok(0) => {}
            Ok(flows) => tracing::info!(flows, "deleted conntrack entries that contradict the rules"),
            Err(error) => tracing::warn!(
                %error,
                "cannot delete conntrack entries that contradict the rules; these flows may keep their previous target"
            ),
        }
    }

    /// Reads the counters of each frontend. The list is empty if the table is missing, or if the kernel does not
    /// support counters in sets.
    pub fn read_traffic(&self) -> Result<Vec<(Frontend, Traffic)>, NftError> {
        let (_, installed) = self.nftables.read(&ruleset::table_id())?;
        let Some(InstalledTable { table, .. }) = installed else { return Ok(Vec::new()) };
        let read_frontend_traffic = |frontend| Some((frontend, ruleset::read_traffic(&table, frontend)?));
        Ok(self.config.frontends().filter_map(read_frontend_traffic).collect())
    }

    fn find_drift(&self) -> Result<Option<Drift>, NftError> {
        // Each transaction increments the generation, even a transaction that changes another table. Reading the
        // generation takes less time than reading the table.
        if self.in_sync_ruleset_generation.get() == Some(self.nftables.generation()?) {
            return Ok(None);
        }
        let (ruleset_generation, installed_table) = self.nftables.read(&ruleset::table_id())?;
        let desired_table = ruleset::build_table(&self.config);
        if installed_table.as_ref().is_some_and(|table| table.equals_ignoring_state(&desired_table)) {
            self.in_sync_ruleset_generation.set(Some(ruleset_generation));
            return Ok(None);
        }
        self.in_sync_ruleset_generation.set(None);
        Ok(Some(Drift { desired_table, installed_table, ruleset_generation }))
    }

    fn replace_table(&self, drift: Drift) -> Result<(), NftError> {
        let Drift { mut desired_table, installed_table, ruleset_generation } = drift;
        if let Some(installed_table) = installed_table {
            desired_table.copy_counters_from(&installed_table.table);
        }
        self.nftables.replace(&desired_table)?;
        // If the generation has increased by exactly one, no other transaction was executed, and the kernel has the
        // desired table.
        let next_generation = ruleset_generation.wrapping_add(1);
        let is_next_generation = self.nftables.generation()? == next_generation;
        self.in_sync_ruleset_generation.set(is_next_generation.then_some(next_generation));
        self.delete_stale_flows();
        Ok(())
    }
}

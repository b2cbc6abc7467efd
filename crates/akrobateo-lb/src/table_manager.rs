//! Keeps a plan's rules in the kernel: puts them in, tells whether they are there, puts them back.

use std::cell::Cell;

use crate::forwarding_config::{ForwardingConfig, Frontend};
use crate::ruleset::{self, Traffic};
use crate::stale_flows::is_stale;
use netfilter::conntrack::Flows;
use netfilter::nft::Table;
use netfilter::nft::client::{NftError, Nftables};

/// A plan whose rules have been put into the kernel.
#[derive(Debug)]
pub struct TableManager {
    plan: ForwardingConfig,
    nftables: Nftables,
    flows: Flows,
    /// The generation of the kernel's rules in which they were last seen complete.
    seen: Cell<Option<u32>>,
}

impl TableManager {
    /// Replaces whatever an earlier process left in this thread's network namespace by the plan's rules, unless
    /// it is the same.
    pub fn install(plan: ForwardingConfig) -> Result<Self, NftError> {
        let (nftables, flows) = (Nftables::open()?, Flows::open()?);
        let keeper = Self { plan, nftables, flows, seen: Cell::new(None) };
        // For some microseconds after a replacement, kernels may find nothing in new interval sets, and drop.
        if keeper.in_sync()? {
            keeper.delete_stale_flows();
        } else {
            keeper.put()?;
        }
        Ok(keeper)
    }

    /// What it keeps.
    #[must_use]
    pub fn plan(&self) -> &ForwardingConfig {
        &self.plan
    }

    /// The flows that pass the rules.
    #[must_use]
    pub fn flows(&self) -> &Flows {
        &self.flows
    }

    /// Whether the rules are in the kernel as planned, at this moment.
    pub fn in_sync(&self) -> Result<bool, NftError> {
        // Any change of any table counts the generation up; only then is it worth to read them all.
        if self.seen.get() == Some(self.nftables.generation()?) {
            return Ok(true);
        }
        let (generation, listed) = self.nftables.read(ruleset::TABLE)?;
        let listed = listed.ok().flatten().map(Table::without_counters);
        let in_sync = listed.is_some_and(|listed| listed == ruleset::table(&self.plan).without_counters());
        self.seen.set(in_sync.then_some(generation));
        Ok(in_sync)
    }

    /// Puts the rules back if they are not in the kernel as planned; returns whether that was needed.
    pub fn restore(&self) -> Result<bool, NftError> {
        if self.in_sync()? {
            return Ok(false);
        }
        self.put()?;
        Ok(true)
    }

    /// Ends flows that the rules decide otherwise than they were decided when they began: flows are not
    /// looked up in the rules again. What can't be ended is logged; new flows are forwarded all the same.
    pub fn delete_stale_flows(&self) {
        match self.flows.delete_stale(|flow| is_stale(flow, &self.plan)) {
            Ok(0) => {}
            Ok(flows) => tracing::info!(flows, "ended flows that began under other rules"),
            Err(error) => tracing::warn!(%error, "cannot end flows that began under other rules"),
        }
    }

    /// What the rules have counted for each port; nothing where the kernel doesn't count, or the rules are gone.
    pub fn traffic(&self) -> Result<Vec<(Frontend, Traffic)>, NftError> {
        let Ok(Some(table)) = self.nftables.read(ruleset::TABLE)?.1 else { return Ok(Vec::new()) };
        let counted = |listen| Some((listen, ruleset::traffic(&table, listen)?));
        Ok(self.plan.frontends().filter_map(counted).collect())
    }

    fn put(&self) -> Result<(), NftError> {
        let mut table = ruleset::table(&self.plan);
        // Whatever can't be read counts from zero again, as counters may.
        if let Ok((_, Ok(Some(before)))) = self.nftables.read(ruleset::TABLE) {
            table.carry_counters(&before);
        }
        let generation = self.nftables.generation()?;
        self.nftables.replace(&table)?;
        // If this was the only transaction meanwhile, the kernel holds what it has acknowledged.
        let next = generation.wrapping_add(1);
        self.seen.set((self.nftables.generation()? == next).then_some(next));
        self.delete_stale_flows();
        Ok(())
    }
}

//! Keeps a plan's rules in the kernel: puts them in, tells whether they are there, puts them back.

use std::cell::Cell;

use crate::conntrack::Flows;
use crate::metrics::{Kind, Text};
use crate::nft::kernel::{NftError, Nftables};
use crate::plan::Plan;
use crate::probe::Status;
use crate::ruleset;

/// A plan whose rules have been put into the kernel.
#[derive(Debug)]
pub struct Keeper {
    plan: Plan,
    nftables: Nftables,
    flows: Flows,
    /// The generation of the kernel's rules in which they were last seen complete.
    seen: Cell<Option<u32>>,
    /// How often the rules had to be put back.
    restored: Cell<u64>,
}

impl Keeper {
    /// Replaces whatever an earlier process left in this thread's network namespace by the plan's rules.
    pub fn install(plan: Plan) -> Result<Self, NftError> {
        let (nftables, flows) = (Nftables::open()?, Flows::open()?);
        let keeper = Self { plan, nftables, flows, seen: Cell::new(None), restored: Cell::new(0) };
        keeper.put()?;
        Ok(keeper)
    }

    /// Whether the rules are in the kernel as planned, at this moment.
    pub fn intact(&self) -> Result<bool, NftError> {
        // Any change of any table counts the generation up; only then is it worth to read them all.
        if self.seen.get() == Some(self.nftables.generation()?) {
            return Ok(true);
        }
        let (generation, listed) = self.nftables.read(ruleset::TABLE)?;
        let intact = listed == Ok(Some(ruleset::table(&self.plan)));
        self.seen.set(intact.then_some(generation));
        Ok(intact)
    }

    /// Puts the rules back if they are not in the kernel as planned; returns whether that was needed.
    pub fn restore(&self) -> Result<bool, NftError> {
        if self.intact()? {
            return Ok(false);
        }
        self.put()?;
        self.restored.set(self.restored.get() + 1);
        Ok(true)
    }

    /// Ends flows that the rules decide otherwise than they were decided when they began: flows are not
    /// looked up in the rules again. What can't be ended is logged; new flows are forwarded all the same.
    pub fn end_stale_flows(&self) {
        match self.flows.end_stale(&self.plan) {
            Ok(0) => {}
            Ok(flows) => tracing::info!(flows, "ended flows that began under other rules"),
            Err(error) => tracing::warn!(%error, "cannot end flows that began under other rules"),
        }
    }

    fn put(&self) -> Result<(), NftError> {
        self.nftables.replace(&ruleset::table(&self.plan))?;
        self.end_stale_flows();
        Ok(())
    }
}

impl Status for Keeper {
    fn ready(&self) -> Result<(), String> {
        match self.intact() {
            Ok(true) => Ok(()),
            Ok(false) => Err("the rules are not in the kernel".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    fn metrics(&self) -> String {
        let mut text = Text::default();
        text.metric(
            "akrobateo_lb_rules_restored_total",
            Kind::Counter,
            "How often the rules had been changed by somebody else and were put back.",
        )
        .value(self.restored.get());
        text.finish()
    }
}

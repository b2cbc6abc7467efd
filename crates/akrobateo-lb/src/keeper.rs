//! Keeps a plan's rules in the kernel: puts them in, tells whether they are there, puts them back.

use std::cell::Cell;

use crate::conntrack;
use crate::nft::{self, kernel::NftError};
use crate::plan::Plan;
use crate::ruleset;

/// A plan whose rules have been put into the kernel.
#[derive(Debug)]
pub struct Keeper {
    plan: Plan,
    /// The generation of the kernel's rules in which they were last seen complete.
    seen: Cell<Option<u32>>,
}

impl Keeper {
    /// Replaces whatever an earlier process left in this network namespace by the plan's rules.
    pub fn install(plan: Plan) -> Result<Self, NftError> {
        let keeper = Self { plan, seen: Cell::new(None) };
        keeper.put()?;
        Ok(keeper)
    }

    /// Whether the rules are in the kernel as planned, at this moment.
    pub fn intact(&self) -> Result<bool, NftError> {
        // Any change of any table counts the generation up; only then is it worth to read them all.
        if self.seen.get() == Some(nft::kernel::generation()?) {
            return Ok(true);
        }
        let (generation, listed) = nft::kernel::read(ruleset::TABLE)?;
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
        Ok(true)
    }

    /// Ends flows that the rules decide otherwise than they were decided when they began: flows are not
    /// looked up in the rules again. What can't be ended is logged; new flows are forwarded all the same.
    pub fn end_stale_flows(&self) {
        match conntrack::sweep(&self.plan) {
            Ok(0) => {}
            Ok(flows) => tracing::info!(flows, "ended flows that began under other rules"),
            Err(error) => tracing::warn!(%error, "cannot end flows that began under other rules"),
        }
    }

    fn put(&self) -> Result<(), NftError> {
        nft::kernel::replace(&ruleset::table(&self.plan))?;
        self.end_stale_flows();
        Ok(())
    }
}

//! The flows of several changes that one search of the conntrack table deletes. Pure.

use std::time::Instant;

use akrobateo_core::Family;

use super::installed::TableChange;
use super::stale::StaleFlows;
use crate::table::NodeTables;

/// The flows of several changes that a search of the conntrack table must delete.
#[derive(Debug)]
pub(super) struct StaleFlowSearch {
    /// The flows that no longer agree with the tables, for each family.
    pub(super) flows: [StaleFlows; 2],
    /// True if flows of earlier rules may exist that a comparison of the tables does not find.
    pub(super) checks_leftovers: bool,
    /// The tables after the last change.
    pub(super) desired_tables: NodeTables,
}

impl StaleFlowSearch {
    /// Returns the search for the stale flows of a change at `now`, and of an earlier search that has not run.
    pub(super) fn new(change: TableChange, earlier: Option<Self>, now: Instant) -> Self {
        let desired = &change.desired_tables.inet;
        let mut flows =
            Family::ALL.map(|family| StaleFlows::find(family, change.installed_table(), desired, now));
        let mut checks_leftovers = change.checks_leftover_flows;
        if let Some(earlier) = earlier {
            checks_leftovers |= earlier.checks_leftovers;
            for ((family, flows), earlier) in Family::ALL.into_iter().zip(&mut flows).zip(earlier.flows) {
                flows.extend(family, earlier, desired);
            }
        }
        Self { flows, checks_leftovers, desired_tables: change.desired_tables }
    }

    /// Returns the time at which the search must run; `None` if no flow is stale. `now` stands for flows that are already
    /// stale.
    pub(super) fn due_at(&self, now: Instant) -> Option<Instant> {
        if self.checks_leftovers {
            return Some(now);
        }
        self.flows.iter().filter_map(|flows| flows.stale_at(now)).min()
    }

    /// Returns the search for the flows that become stale after `now`; `None` if there are no such flows.
    pub(super) fn after(mut self, now: Instant) -> Option<Self> {
        self.checks_leftovers = false;
        self.flows.iter_mut().for_each(|flows| flows.retain_delayed(now));
        self.due_at(now).is_some().then_some(self)
    }
}

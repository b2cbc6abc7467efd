//! The flows of several changes that one search of the conntrack table deletes. Pure.

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
    /// Returns the search for the stale flows of a change and of an earlier search that has not run.
    pub(super) fn new(change: TableChange, earlier: Option<Self>) -> Self {
        let mut flows = Family::ALL
            .map(|family| StaleFlows::find(family, change.installed_table(), &change.desired_tables.inet));
        let mut checks_leftovers = change.checks_leftover_flows;
        if let Some(earlier) = earlier {
            checks_leftovers |= earlier.checks_leftovers;
            for (flows, earlier) in flows.iter_mut().zip(earlier.flows) {
                flows.extend(earlier);
            }
        }
        Self { flows, checks_leftovers, desired_tables: change.desired_tables }
    }

    /// Returns true if no flow is stale.
    pub(super) fn is_empty(&self) -> bool {
        !self.checks_leftovers && self.flows.iter().all(|flows| *flows == StaleFlows::default())
    }
}

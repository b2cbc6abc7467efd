//! Changes that concern the flows of earlier rules: conntrack entries, affinities, and elements in use. Does I/O.

use akrobateo_core::Family;
use netfilter::conntrack::{Conntrack, Entry, EntryFilter};
use netfilter::nft::InstalledTable;
use netfilter::nft::client::Nftables;
use netfilter::nft::model::Set;

use super::error::DataPathError;
use super::flows_in_use::UsedSet;
use super::leftovers::CurrentRules;
use super::stale::{self, StaleFlows};
use crate::table::NodeTables;

/// Adds the elements to the desired tables that established connections to former endpoints need.
pub(super) fn keep_in_use(
    conntrack: &Conntrack,
    installed: Option<&InstalledTable>,
    desired: &mut NodeTables,
) -> Result<(), DataPathError> {
    let Some(InstalledTable { table: installed, .. }) = installed else { return Ok(()) };
    for (set, family) in UsedSet::ALL.into_iter().flat_map(|set| Family::ALL.map(|family| (set, family))) {
        let lost = set.find_lost(family, installed, &desired.inet);
        if !lost.is_empty() {
            let entries = conntrack.entries(&set.filter(family, &lost));
            let entries = entries.map_err(DataPathError::Conntrack)?;
            set.keep_used(family, lost.into_iter().cloned().collect(), &entries, &mut desired.inet);
        }
    }
    Ok(())
}

/// Deletes the conntrack entries of flows that no longer agree with the desired tables, and returns their number.
/// `checks_leftovers` is true if the differences between the tables do not show all of them.
pub(super) fn delete_stale(
    conntrack: &Conntrack,
    installed: Option<&InstalledTable>,
    desired: &NodeTables,
    checks_leftovers: bool,
) -> Result<usize, DataPathError> {
    let mut deleted = 0;
    for family in Family::ALL {
        let stale_flows = StaleFlows::find(family, installed.map(|it| &it.table), &desired.inet);
        let current_rules = checks_leftovers.then(|| CurrentRules::new(family, &desired.inet));
        let current_rules = current_rules.filter(|rules| !rules.is_empty());
        let all_entries = current_rules.is_some().then(|| EntryFilter::new(family));
        let Some(filter) = all_entries.or_else(|| stale_flows.filter(family)) else { continue };
        let is_stale = |entry: &Entry| {
            stale_flows.contains(entry) || current_rules.as_ref().is_some_and(|rules| rules.contradict(entry))
        };
        deleted += conntrack.delete_entries_if(&filter, is_stale).map_err(DataPathError::Conntrack)?;
    }
    Ok(deleted)
}

/// Deletes the affinities to endpoints that are gone, and returns their number. `checks_leftovers` as in
/// [`delete_stale`].
pub(super) fn delete_stale_affinities(
    nftables: &Nftables,
    installed: Option<&InstalledTable>,
    desired: &NodeTables,
    checks_leftovers: bool,
) -> Result<usize, DataPathError> {
    let mut deleted = 0;
    for family in Family::ALL {
        let suffix = if family == Family::V4 { '4' } else { '6' };
        let is_affinity_set = |set: &&Set| set.definition.dynamic.is_some() && set.name.ends_with(suffix);
        let affinity_sets: Vec<_> = desired.inet.sets.iter().filter(is_affinity_set).collect();
        let has_equal_endpoints = !checks_leftovers
            && installed
                .is_some_and(|installed| stale::has_equal_endpoints(family, &installed.table, &desired.inet));
        if affinity_sets.is_empty() || has_equal_endpoints {
            continue;
        }
        let endpoints = stale::endpoints(family, &desired.inet);
        for set in affinity_sets {
            let is_stale = |element: &_| stale::is_stale_affinity(family, element, &endpoints);
            deleted += nftables.delete_dynamic_elements(&desired.inet.id, set, is_stale)?;
        }
    }
    Ok(deleted)
}

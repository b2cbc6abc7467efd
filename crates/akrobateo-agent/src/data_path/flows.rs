//! Deletes what earlier rules have left behind: conntrack entries, affinities, and elements of former endpoints. Does I/O.

use akrobateo_core::Family;
use netfilter::conntrack::{Conntrack, Entry, EntryFilter};
use netfilter::nft::client::Nftables;
use netfilter::nft::model::Set;
use netfilter::nft::{Action, Transaction};

use super::error::DataPathError;
use super::former_elements::{FormerElements, UsedSet};
use super::installed::TableChange;
use super::leftovers::CurrentRules;
use super::stale::{StaleAffinities, StaleFlows};
use crate::table::NodeTables;

/// Deletes the elements of former endpoints that no connection needs. The elements that connections need remain in the
/// list.
pub(super) fn delete_unused(
    conntrack: &Conntrack,
    nftables: &Nftables,
    former: &mut Vec<FormerElements>,
    desired: &NodeTables,
) -> Result<(), DataPathError> {
    for used_set in UsedSet::ALL {
        if former.iter().all(|former| former.set != used_set) {
            continue;
        }
        let filter = used_set.filter();
        let entries = conntrack.entries(&filter).map_err(DataPathError::Conntrack)?;
        for former in former.iter_mut().filter(|former| former.set == used_set) {
            let unused = former.remove_unused(&entries);
            if let (false, Some(set)) = (unused.is_empty(), former.find_set(&desired.inet)) {
                let mut transaction = Transaction::default();
                let action = Action::DeleteElements(set, unused.iter().collect());
                transaction.push(&desired.inet.id, action);
                nftables.execute(&transaction)?;
            }
        }
    }
    former.retain(|former| !former.is_empty());
    Ok(())
}

/// Deletes the conntrack entries of flows that no longer agree with the desired tables, and returns their number.
pub(super) fn delete_stale(conntrack: &Conntrack, change: &TableChange) -> Result<usize, DataPathError> {
    let (installed, desired) = (change.installed_table(), &change.desired.inet);
    let (mut filters, mut stale_flows, mut current_rules) = (Vec::new(), Vec::new(), Vec::new());
    for family in Family::ALL {
        let flows = StaleFlows::find(family, installed, desired);
        let rules = change.checks_leftovers.then(|| CurrentRules::new(family, desired));
        let rules = rules.filter(|rules| !rules.is_empty());
        let all_entries = rules.is_some().then(|| EntryFilter::new(family));
        filters.extend(all_entries.or_else(|| flows.filter(family)));
        stale_flows.push(flows);
        current_rules.extend(rules);
    }
    // The kernel needs 10 ms to search a large table, so one search finds the entries of both families.
    let filter = match &filters[..] {
        [] => return Ok(0),
        [filter] => *filter,
        [first, others @ ..] => EntryFilter {
            mark: first.mark.filter(|_| others.iter().all(|other| other.mark == first.mark)),
            ..EntryFilter::default()
        },
    };
    let is_stale = |entry: &Entry| {
        stale_flows.iter().any(|flows| flows.contains(entry))
            || current_rules.iter().any(|rules| rules.contradict(entry))
    };
    conntrack.delete_entries_if(&filter, is_stale).map_err(DataPathError::Conntrack)
}

/// Deletes the affinities to endpoints that are gone, and returns their number.
pub(super) fn delete_stale_affinities(
    nftables: &Nftables,
    change: &TableChange,
) -> Result<usize, DataPathError> {
    let (installed, desired) = (change.installed_table(), &change.desired.inet);
    let mut deleted = 0;
    for family in Family::ALL {
        let suffix = if family == Family::V4 { '4' } else { '6' };
        let is_affinity_set = |set: &&Set| set.definition.dynamic.is_some() && set.name.ends_with(suffix);
        let mut affinity_sets = desired.sets.iter().filter(is_affinity_set).peekable();
        let installed = installed.filter(|_| !change.checks_leftovers);
        if affinity_sets.peek().is_none() {
            continue;
        }
        let Some(affinities) = StaleAffinities::find(family, installed, desired, change.is_partial) else {
            continue;
        };
        for set in affinity_sets {
            deleted += nftables.delete_dynamic_elements(&desired.id, set, |it| affinities.contains(it))?;
        }
    }
    Ok(deleted)
}

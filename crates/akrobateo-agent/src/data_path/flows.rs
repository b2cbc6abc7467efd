//! Deletes the conntrack entries, affinities and elements of former endpoints that belong to earlier rules. Does I/O.

use std::time::Instant;

use akrobateo_core::Family;
use netfilter::conntrack::{Conntrack, Entry, EntryFilter};
use netfilter::nft::client::Nftables;
use netfilter::nft::model::Set;
use netfilter::nft::{Action, Transaction};

use super::error::DataPathError;
use super::former_elements::{ConnectionSet, FormerElements};
use super::installed::TableChange;
use super::leftovers::CurrentRules;
use super::stale::StaleAffinities;
use super::stale_flow_search::StaleFlowSearch;
use crate::config::NodeConfig;
use crate::table::NodeTables;

/// Deletes the elements of former endpoints that no connection needs any more. The other elements remain in
/// `former_elements`.
pub(super) fn delete_unused_elements(
    conntrack: &Conntrack,
    nftables: &Nftables,
    former_elements: &mut Vec<FormerElements>,
    config: &NodeConfig,
) -> Result<(), DataPathError> {
    let mut tables = None;
    for connection_set in ConnectionSet::ALL {
        if former_elements.iter().all(|elements| elements.set != connection_set) {
            continue;
        }
        let filter = connection_set.filter();
        let entries = conntrack.entries(&filter).map_err(DataPathError::Conntrack)?;
        for elements in former_elements.iter_mut().filter(|elements| elements.set == connection_set) {
            let unused_elements = elements.remove_unused(&entries);
            if unused_elements.is_empty() {
                continue;
            }
            let table = &tables.get_or_insert_with(|| NodeTables::new(config)).inet;
            if let Some(set) = elements.find_set(table) {
                let mut transaction = Transaction::default();
                transaction.push(&table.id, Action::DeleteElements(set, unused_elements.iter().collect()));
                nftables.execute(&transaction)?;
            }
        }
    }
    former_elements.retain(|elements| !elements.is_empty());
    Ok(())
}

/// Deletes the conntrack entries of flows that contradict the tables at `now`, and returns the number of these entries.
pub(super) fn delete_stale_flows(
    conntrack: &Conntrack,
    search: &StaleFlowSearch,
    now: Instant,
) -> Result<usize, DataPathError> {
    let (mut filters, mut current_rules) = (Vec::new(), Vec::new());
    for (family, flows) in Family::ALL.into_iter().zip(&search.flows) {
        let rules = search.checks_leftovers.then(|| CurrentRules::new(family, &search.desired_tables.inet));
        let rules = rules.filter(|rules| !rules.is_empty());
        let all_entries = rules.is_some().then(|| EntryFilter::new(family));
        filters.extend(all_entries.or_else(|| flows.filter(family)));
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
        search.flows.iter().any(|flows| flows.contains(entry, now))
            || current_rules.iter().any(|rules| rules.contradicts_rules(entry))
    };
    conntrack.delete_entries_if(&filter, is_stale).map_err(DataPathError::Conntrack)
}

/// Deletes the affinities to lost endpoints, and returns the number of these affinities.
pub(super) fn delete_stale_affinities(
    nftables: &Nftables,
    change: &TableChange,
) -> Result<usize, DataPathError> {
    let (installed, desired) = (change.installed_table(), &change.desired_tables.inet);
    let mut deleted_count = 0;
    for family in Family::ALL {
        let suffix = if family == Family::V4 { '4' } else { '6' };
        let is_affinity_set = |set: &&Set| set.definition.dynamic.is_some() && set.name.ends_with(suffix);
        let mut affinity_sets = desired.sets.iter().filter(is_affinity_set).peekable();
        let installed = installed.filter(|_| !change.checks_leftover_flows);
        if affinity_sets.peek().is_none() {
            continue;
        }
        let Some(affinities) = StaleAffinities::find(family, installed, desired, change.is_partial) else {
            continue;
        };
        for set in affinity_sets {
            deleted_count +=
                nftables.delete_dynamic_elements(&desired.id, set, |it| affinities.contains(it))?;
        }
    }
    Ok(deleted_count)
}

//! Deletes the state in the kernel that belongs to earlier rules: conntrack entries, affinities, and elements of former
//! endpoints. Does I/O.

use std::time::{Duration, Instant};

use super::error::DataPathError;
use super::stale_flow_search::StaleFlowSearch;
use super::{Changes, DataPath, flows};

/// The minimum time between two searches for connections to former endpoints. Their elements only need memory, and each
/// search takes as much time as a search for stale flows.
const ELEMENT_CHECK_INTERVAL: Duration = Duration::from_secs(30);

impl DataPath {
    /// Deletes the conntrack entries, the affinities and the elements of former endpoints that earlier calls of
    /// [`Self::install`] have left behind. Returns the numbers of deleted entries and affinities. After an error, the
    /// deletion is repeated after the next change.
    pub fn delete_stale_state(&mut self) -> Result<(usize, usize), DataPathError> {
        self.last_element_check_at = None;
        let affinity_count = self.delete_stale_affinities()?;
        Ok((self.delete_stale_flows(Instant::now())?, affinity_count))
    }

    /// Deletes the affinities that the last call of [`Self::install`] has left behind, and returns their number. Also
    /// records the flows that [`Self::delete_stale_flows`] must delete.
    pub fn delete_stale_affinities(&mut self) -> Result<usize, DataPathError> {
        let Some(change) = self.unfinished_change.take() else { return Ok(0) };
        // A flow without an entry chooses an endpoint again. A stale affinity would lead to the lost endpoint.
        let result = flows::delete_stale_affinities(&self.nftables, &change);
        match result {
            // The flows of this change are recorded, so the next change need not find them again.
            Ok(_) => self.may_have_leftover_flows = false,
            Err(_) => self.installed_config = None,
        }
        let now = Instant::now();
        let search = StaleFlowSearch::new(change, self.stale_flows.take(), now);
        self.stale_flows = search.due_at(now).is_some().then_some(search);
        result
    }

    /// Deletes the conntrack entries and the elements of former endpoints that earlier changes have left behind, if they
    /// are due at `now`. Returns the number of deleted entries.
    ///
    /// The kernel needs some milliseconds to search a large conntrack table, so the caller may wait for further changes
    /// before the search.
    pub fn delete_stale_flows(&mut self, now: Instant) -> Result<usize, DataPathError> {
        let result = self.delete_stale_entries(now).and_then(|count| {
            self.delete_unused_elements(now)?;
            Ok(count)
        });
        if result.is_err() {
            self.may_have_leftover_flows = true;
            self.installed_config = None;
        }
        result
    }

    fn delete_stale_entries(&mut self, now: Instant) -> Result<usize, DataPathError> {
        let is_due = |search: &mut StaleFlowSearch| search.due_at(now).is_some_and(|due_at| due_at <= now);
        let Some(search) = self.stale_flows.take_if(is_due) else { return Ok(0) };
        let result = flows::delete_stale_flows(&self.conntrack, &search, now);
        self.stale_flows = search.after(now);
        result
    }

    /// Deletes the elements of former endpoints that no connection needs any more.
    fn delete_unused_elements(&mut self, now: Instant) -> Result<(), DataPathError> {
        let is_due = self.element_check_at(now).is_some_and(|check_at| check_at <= now);
        let Some(config) = self.installed_config.as_ref().filter(|_| is_due) else { return Ok(()) };
        self.last_element_check_at = Some(now);
        flows::delete_unused_elements(&self.conntrack, &self.nftables, &mut self.former_elements, config)
    }

    /// Returns the time of the next search for connections to former endpoints; `None` if there are no elements of
    /// former endpoints.
    fn element_check_at(&self, now: Instant) -> Option<Instant> {
        let may_check = self.installed_config.is_some() && !self.former_elements.is_empty();
        let next_check_at = self.last_element_check_at.map_or(now, |time| time + ELEMENT_CHECK_INTERVAL);
        may_check.then_some(next_check_at)
    }

    /// Returns the time at which [`Self::delete_stale_flows`] must search the conntrack table; `None` if nothing is
    /// stale. `now` stands for flows and elements that are already stale.
    #[must_use]
    pub fn stale_flows_at(&self, now: Instant) -> Option<Instant> {
        let search_at = self.stale_flows.as_ref().and_then(|search| search.due_at(now));
        [search_at, self.element_check_at(now)].into_iter().flatten().min()
    }

    /// Returns true if the search must not wait, because flows of an earlier process may exist.
    #[must_use]
    pub fn must_check_leftover_flows(&self) -> bool {
        self.stale_flows.as_ref().is_some_and(|search| search.checks_leftovers)
    }

    pub(super) fn finish_change(
        &mut self,
        result: Result<Changes, DataPathError>,
    ) -> Result<Changes, DataPathError> {
        let deletion_result = self.delete_stale_state();
        let changes = result?;
        let (deleted_flows, deleted_affinities) = deletion_result?;
        Ok(Changes { deleted_flows, deleted_affinities, ..changes })
    }
}

//! Records the last writes to each Service and to its workload, finds changes by other programs, and limits the
//! operator's writes. Pure.
//!
//! A restart of the operator deletes these records. The operator then restores the fields that differ, and detects the
//! conflict again.

use std::collections::{HashMap, VecDeque};

use akrobateo_services::key::ServiceKey;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::actions::Action;
use super::current_condition::{CONDITION_TYPE, current_condition};
use super::decision::{Decision, DesiredStatus, ProxyDecision};
use super::drift::field_paths;
use super::note::Note;
use super::service_state::ServiceState;
use super::status_owner::{StatusField, find_last_writer, has_written_addresses};
use super::workload::Workload;
use super::write_conflict::{CONFLICT_PREFIX, ConflictTracker, STATUS_POLICY, WORKLOAD_POLICY};
use super::write_limits::{WriteLimit, WriteLimits, WrittenStatus};
use super::written_addresses::WrittenAddresses;
use crate::reason::Reason;

/// The maximum number of writes per minute that change only the message of the condition. The message may change with
/// each start of a proxy.
const MAX_MESSAGE_WRITES_PER_MINUTE: usize = 6;
/// The maximum number of fields in a message.
const MAX_LISTED_FIELDS: usize = 3;
const MINUTE: SignedDuration = SignedDuration::from_mins(1);

/// The writes to all Services.
#[derive(Debug, Default)]
pub(crate) struct WriteHistory(HashMap<ServiceKey, ServiceWriteRecord>);

/// The writes to one Service and to its workload.
#[derive(Debug)]
struct ServiceWriteRecord {
    /// The UID of the Service. A new Service with the same name gets a new record.
    service_uid: Option<String>,
    status: StatusWriteRecord,
    workload: WorkloadWriteRecord,
}

#[derive(Debug)]
struct StatusWriteRecord {
    last_written_status: Option<WrittenStatus>,
    /// The times of the writes in the last minute.
    write_times: VecDeque<Timestamp>,
    tracker: ConflictTracker,
}

#[derive(Debug)]
struct WorkloadWriteRecord {
    /// The digest of the spec that the operator applied last.
    applied_spec_digest: Option<String>,
    tracker: ConflictTracker,
}

impl WriteHistory {
    /// Adds the conflicts with other programs to the condition of a decision, and limits the decision's
    /// writes.
    pub(crate) fn limit_writes(
        &mut self,
        operator_instance: &str,
        key: &ServiceKey,
        state: &ServiceState,
        mut decision: Decision,
        now: Timestamp,
    ) -> Decision {
        let Some(service) = state.service.as_deref() else {
            self.0.remove(key);
            return decision;
        };
        let record = self.get_or_create_record(key, service.metadata.uid.as_deref());
        let workload_write_limit = record.workload.observe(state, &decision, now);
        record.status.observe(operator_instance, service, decision.status.is_some(), now);
        let conflicts = [
            (Reason::StatusConflict, &record.status.tracker),
            (Reason::WorkloadConflict, &record.workload.tracker),
        ];
        for (reason, tracker) in conflicts {
            if let Some(message) = tracker.message() {
                decision.add_note(Note { text: message.to_owned(), warning_reason: Some(reason) });
            }
            decision.recheck_no_later_than(tracker.conflict_ends_at().filter(|end| *end > now));
        }
        let desired = decision.status.as_ref();
        let status_write_limit = match decision.write_limits.status {
            delay @ WriteLimit::DelayUntil(_) => delay,
            WriteLimit::Change | WriteLimit::Restore => {
                desired.map_or(WriteLimit::Change, |desired| record.status.limit_write(desired, now))
            }
        };
        decision.recheck_no_later_than(status_write_limit.delayed_until());
        decision.recheck_no_later_than(workload_write_limit.delayed_until());
        decision.write_limits = WriteLimits {
            status: status_write_limit,
            workload: workload_write_limit,
            previous_status: record.status.last_written_status.clone(),
        };
        decision
    }

    /// Records a successful write for the Service with this UID. `version` is the object's resourceVersion after the
    /// write.
    pub(crate) fn on_written(
        &mut self,
        key: &ServiceKey,
        service_uid: Option<&str>,
        action: &Action,
        version: Option<&str>,
        now: Timestamp,
    ) {
        match action {
            Action::PatchStatus { addresses, condition, .. } => {
                let addresses = WrittenAddresses::new(addresses);
                let written_status = WrittenStatus { addresses, condition: condition.clone() };
                self.get_or_create_record(key, service_uid).status.on_written(written_status, version, now);
            }
            Action::Apply(workload) => {
                self.get_or_create_record(key, service_uid).workload.on_applied(
                    workload.spec_digest(),
                    version,
                    now,
                );
            }
            Action::DeleteKeepingPods(_) => {
                // The apply that follows completes the restore.
                self.get_or_create_record(key, service_uid).workload.tracker.on_write(None, false, now);
            }
            Action::Delete(_) | Action::DeletePod(_) | Action::EmitEvent { .. } => (),
        }
    }

    /// Removes all records, because another replica may have written meanwhile.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    fn get_or_create_record(
        &mut self,
        key: &ServiceKey,
        service_uid: Option<&str>,
    ) -> &mut ServiceWriteRecord {
        let new_record = || ServiceWriteRecord {
            service_uid: service_uid.map(str::to_owned),
            status: StatusWriteRecord::new(),
            workload: WorkloadWriteRecord {
                applied_spec_digest: None,
                tracker: ConflictTracker::new(&WORKLOAD_POLICY),
            },
        };
        let record = self.0.entry(key.clone()).or_insert_with(new_record);
        if record.service_uid.as_deref() != service_uid {
            *record = new_record();
        }
        record
    }
}

/// Adds the conflicts in the current condition to a decision. The administrator's commands need this function,
/// because they have no record of earlier writes.
pub(crate) fn with_reported_conflicts(mut decision: Decision, service: Option<&Service>) -> Decision {
    let message = service.and_then(current_condition).map(|condition| condition.message.as_str());
    if let Some((_, conflicts)) = message.and_then(|message| message.split_once(CONFLICT_PREFIX)) {
        decision.add_note(Note::without_warning(format!("{CONFLICT_PREFIX}{conflicts}")));
    }
    decision
}

impl StatusWriteRecord {
    const fn new() -> Self {
        let tracker = ConflictTracker::new(&STATUS_POLICY);
        Self { last_written_status: None, write_times: VecDeque::new(), tracker }
    }

    fn on_written(&mut self, written_status: WrittenStatus, version: Option<&str>, now: Timestamp) {
        let last_written = self.last_written_status.as_ref();
        let is_restore =
            last_written.is_some_and(|last_written| last_written.has_same_content(&written_status));
        self.tracker.on_write(version, is_restore, now);
        self.write_times.retain(|time| *time > now - MINUTE);
        self.write_times.push_back(now);
        self.last_written_status = Some(written_status);
    }

    /// Compares the current status with the last status that the operator wrote.
    fn observe(&mut self, operator_instance: &str, service: &Service, is_served: bool, now: Timestamp) {
        if !is_served {
            *self = Self::new();
        }
        let Some(written_status) = &self.last_written_status else { return };
        let field = if !has_written_addresses(operator_instance, service, &written_status.addresses) {
            StatusField::Addresses
        } else if !written_status.has_same_condition(current_condition(service)) {
            StatusField::Condition
        } else {
            return self.tracker.on_unchanged(now);
        };
        let version = service.metadata.resource_version.as_deref();
        self.tracker.on_change_by_other_program(version, now, || {
            status_conflict_message(operator_instance, service, field)
        });
    }

    fn limit_write(&self, desired: &DesiredStatus, now: Timestamp) -> WriteLimit {
        let written_status = self.last_written_status.as_ref();
        let is_restore = written_status.is_some_and(|written_status| {
            written_status.matches_desired(&desired.addresses, desired.exposure.as_ref())
        });
        if let Some(delayed_until) = self.tracker.delayed_until(is_restore, now) {
            return WriteLimit::DelayUntil(delayed_until);
        }
        if is_restore {
            return WriteLimit::Restore;
        }
        let is_message_only =
            written_status.zip(desired.exposure.as_ref()).is_some_and(|(written_status, exposure)| {
                written_status.has_same_addresses_and_reason(&desired.addresses, exposure)
            });
        let recent_write_times = self.write_times.iter().filter(|time| **time > now - MINUTE);
        let recent_write_times: Vec<_> = recent_write_times.collect();
        if is_message_only
            && self.tracker.message().is_none()
            && recent_write_times.len() >= MAX_MESSAGE_WRITES_PER_MINUTE
        {
            return WriteLimit::DelayUntil(*recent_write_times[0] + MINUTE);
        }
        WriteLimit::Change
    }
}

impl WorkloadWriteRecord {
    fn on_applied(&mut self, digest: Option<&str>, version: Option<&str>, now: Timestamp) {
        let is_restore = self.applied_spec_digest.is_some() && self.applied_spec_digest.as_deref() == digest;
        self.tracker.on_write(version, is_restore, now);
        self.applied_spec_digest = digest.map(str::to_owned);
    }

    /// Compares the current workload with the desired workload, and returns the limit of the next write.
    fn observe(&mut self, state: &ServiceState, decision: &Decision, now: Timestamp) -> WriteLimit {
        let ProxyDecision::RunWorkload(desired) = &decision.proxy else { return WriteLimit::Change };
        let mut workloads = state.workloads.iter();
        let Some(existing_workload) = workloads.find(|workload| workload.has_same_identity(desired)) else {
            return WriteLimit::Change;
        };
        // The operator itself has deleted the workload, and will create the workload again.
        if existing_workload.metadata().deletion_timestamp.is_some() {
            return WriteLimit::Restore;
        }
        let is_changed = !decision.is_workload_applied;
        if is_changed && self.applied_spec_digest.as_deref() != desired.spec_digest() {
            return WriteLimit::Change;
        }
        if !is_changed && !existing_workload.has_added_fields() {
            self.tracker.on_unchanged(now);
            return WriteLimit::Change;
        }
        let version = existing_workload.metadata().resource_version.as_deref();
        self.tracker
            .on_change_by_other_program(version, now, || workload_conflict_message(existing_workload));
        self.tracker.delayed_until(true, now).map_or(WriteLimit::Restore, WriteLimit::DelayUntil)
    }
}

fn status_conflict_message(operator_instance: &str, service: &Service, field: StatusField) -> String {
    let manager = match find_last_writer(operator_instance, service, field) {
        Some(manager) if manager == operator_instance => {
            format!(
                "field manager {manager}, the same as this operator: give each operator its own --instance"
            )
        }
        Some(manager) => format!("field manager {manager}"),
        None => "unknown field manager".to_owned(),
    };
    let field = match field {
        StatusField::Addresses => "status.loadBalancer".to_owned(),
        StatusField::Condition => format!("the condition {CONDITION_TYPE}"),
    };
    format!(
        "{CONFLICT_PREFIX}{manager}) overwrites {field}; during this conflict, Akrobateo waits up to 5 minutes before each \
         restore; stop that program for this Service, or create the Service again with a loadBalancerClass that only one \
         implementation serves"
    )
}

fn workload_conflict_message(workload: &Workload) -> String {
    let entries = workload.added_fields();
    let manager = entries
        .iter()
        .find_map(|entry| entry.manager.as_deref())
        .map_or_else(|| "unknown field manager".to_owned(), |manager| format!("field manager {manager}"));
    let paths: Vec<_> = entries.iter().flat_map(field_paths).take(MAX_LISTED_FIELDS).collect();
    let fields = if paths.is_empty() { "fields".to_owned() } else { paths.join(", ") };
    format!(
        "{CONFLICT_PREFIX}{manager}) changes {fields} of {}; Akrobateo restored the fields {} times and now waits several \
         hours before the next restore; exclude the workload in that program, then run: \
         kubectl delete --cascade=orphan {}",
        workload.full_name(),
        WORKLOAD_POLICY.max_immediate_restores,
        workload.kubectl_arguments()
    )
}

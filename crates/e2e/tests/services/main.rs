//! Tests that inject no faults. They can run at the same time, and on any cluster.

mod annotations;
mod changes;
mod data_plane;
mod exposure;
mod manual_edits;
mod placement;
mod pod_security;
mod port_ownership;
mod removal;
mod source_ranges;
mod traffic_policy;
mod userspace;
mod workloads;

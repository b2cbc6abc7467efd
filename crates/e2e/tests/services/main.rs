//! Tests that inject no faults. These tests can run at the same time, and on any cluster.

mod annotations;
mod changes;
mod charts;
mod data_plane;
mod exposure;
mod forged_objects;
mod host_ports;
mod manual_edits;
mod placement;
mod pod_security;
mod port_ownership;
mod rejected_services;
mod removal;
mod settings_without_effect;
mod source_ranges;
mod traffic_policy;
mod userspace;
mod workloads;

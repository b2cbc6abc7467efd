//! Tests that inject faults. These tests run one at a time on the cluster that `cluster/up` starts. Each test restores
//! the cluster.

mod addresses;
mod api_server;
mod conflicts;
mod idempotence;
mod loopback;
mod nodes;
mod operator;
mod outage;
mod proxies;
mod replicas;
mod rollouts;
mod scale;
mod settings;
mod tenants;
mod watch_namespace;

//! The watched objects of the cluster, and the agents of the other nodes.

mod agents;
mod host_ports;
mod stores;

pub(crate) use agents::Agents;
pub(crate) use host_ports::{ProxyLabels, host_port_pod};
pub(crate) use stores::{Stores, Trigger, TriggerSender, WatchScope, resource_version};

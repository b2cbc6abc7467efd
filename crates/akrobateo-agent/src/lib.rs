//! The node agent: forwards the packets of Services in the node's network namespace.

pub mod agent;
mod cluster;
pub mod config;
pub mod data_path;
pub mod host;
mod kernel_features;
pub mod listeners;
pub mod marks;
mod plan;
pub mod probe;
pub mod routing;
pub mod run;
pub mod settings;
pub mod show;
pub mod table;
pub mod tunnel;

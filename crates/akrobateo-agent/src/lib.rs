//! The node agent: forwards Services from the node's own network.

pub mod agent;
pub mod config;
pub mod data_path;
pub mod marks;
pub mod probe;
pub mod show;
pub mod table;
pub mod tunnel;

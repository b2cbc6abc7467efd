//! The node agent: forwards Services from the node's own network.

pub mod marks;
pub mod probe;
pub mod tunnel;

//! The report of the results, as Markdown and as JSON. Pure.

pub(crate) mod document;
pub(crate) mod json;
pub(crate) mod markdown;
mod neighbours;
mod node_table;
mod ratios;
mod table;
mod targets;
mod two_nodes;

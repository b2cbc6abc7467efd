//! Connection tracking: finds the flows that new rules decide otherwise, and ends them.

mod flow;
mod kernel;

pub use kernel::Flows;

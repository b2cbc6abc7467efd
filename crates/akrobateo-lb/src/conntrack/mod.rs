//! Connection tracking: its figures, and the flows that new rules decide otherwise, which end.

mod flow;
mod kernel;
mod statistics;

pub use kernel::Flows;
pub use statistics::Statistics;

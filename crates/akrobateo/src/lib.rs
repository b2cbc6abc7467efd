//! The operator, and the administrator's commands.
//!
//! Data flows from `cache` (stores and watches) through the pure core (`spec`, `allocation`, `decide`) to `apply`
//! (writes). The pure core imports neither `cache` nor `apply`. `planner` and `reconcile` connect these modules for one
//! Service, and `run` runs the whole operator.

mod apply;
mod cache;
mod cli;
mod decide;
mod host_name;
mod http;
mod kube_proxy;
mod lease;
mod metrics;
mod planner;
mod queue;
mod reason;
mod reconcile;
#[cfg(test)]
mod reference;
mod run;
mod settings;

pub use cli::{Invocation, ParsedCommand};
pub use run::{RunError, run};
pub use settings::OperatorConfig;

//! The operator. Per Service: [`observe`] what is, [`decide`] what should be, [`apply`] the difference.

mod address_type;
mod allocation;
mod apply;
mod cache;
mod call;
mod cli;
mod client;
mod decide;
mod http;
mod key;
mod kube_proxy;
mod lease;
mod metrics;
mod node_info;
mod planner;
mod queue;
mod reason;
mod reconcile;
#[cfg(test)]
mod reference;
mod run;
mod settings;
mod spec;

pub use cli::{Invocation, Task};
pub use run::{StartError, run};
pub use settings::OperatorConfig;

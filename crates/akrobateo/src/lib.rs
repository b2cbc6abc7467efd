//! The operator. [`cache`] watches the cluster, [`planner`] allocates ports, [`decide`] works out what each Service needs,
//! [`apply`] writes it. [`run`] drives them.

mod address_type;
mod allocation;
mod apply;
mod cache;
mod call;
mod cli;
mod client;
mod decide;
mod error_chain;
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
#[cfg(test)]
mod scripted_api;
mod settings;
mod spec;

pub use cli::{Invocation, Task};
pub use run::{StartError, run};
pub use settings::OperatorConfig;

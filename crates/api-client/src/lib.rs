//! The client of the API server for the operator and the node agents: connections, requests with deadlines, and watches
//! that keep a store up to date.

mod call;
mod connect;
mod error_chain;
mod list;
mod metrics;
mod reflector;
mod scope;
#[cfg(feature = "scripted-api")]
#[allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::must_use_candidate,
    clippy::missing_panics_doc,
    reason = "tests"
)]
pub mod scripted_api;
mod store;

pub use call::{CallError, REQUEST_DEADLINE, call};
pub use connect::{ConnectError, ConnectOptions, connect};
pub use error_chain::error_chain;
pub use list::{ListError, list_into_store};
pub use metrics::{ApiMetrics, CallLabels, CallResult, WatchLabels};
pub use reflector::{TriggerSender, WatchSpec, spawn_reflector, watch_config};
pub use scope::service_api;
pub use store::{NoIndex, Store, WatchEnded};

//! The settings that each Service asks for, and the ports of nodes that it gets. The operator and the node agents decide with the
//! same functions, so that they decide alike. No I/O.

pub mod address_type;
pub mod agent_report;
pub mod allocation;
pub mod endpoints;
#[cfg(any(test, feature = "fixtures"))]
#[allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::must_use_candidate,
    clippy::return_self_not_must_use,
    clippy::missing_panics_doc,
    reason = "tests"
)]
pub mod fixtures;
pub mod key;
pub mod kube_proxy_findings;
mod node_addresses;
pub mod node_info;
pub mod published;
pub mod settings;
pub mod spec;

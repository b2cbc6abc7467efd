//! Validates the settings of Services, and allocates the ports of nodes to Services. The operator and the node agents
//! use the same functions, so that both make the same decisions. No I/O.

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
pub mod parsed_services;
pub mod published;
pub mod settings;
pub mod spec;

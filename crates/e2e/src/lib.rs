//! Tests of Akrobateo against a real cluster: the harness, and what the `echo` program shares with it.

mod answer;
pub mod backend;
mod cluster;
mod command;
mod diagnostics;
mod environment;
mod eventually;
mod exposure;
mod failure;
mod faults;
mod namespace;
mod operator;
mod outside;
mod ports;
mod proxies;
mod reply;
mod run;
mod service;
mod target;

pub use answer::{Answer, ParseAnswerError};
pub use cluster::{Cluster, NodeAddresses};
pub use environment::EnvironmentError;
pub use eventually::{eventually, stays, within};
pub use exposure::targets;
pub use failure::{Failure, ensure, same};
pub use faults::Faults;
pub use namespace::Namespace;
pub use operator::Operator;
pub use outside::Session;
pub use proxies::OPERATOR_NAMESPACE;
pub use reply::{ParseReplyError, Reply};
pub use run::{fault_test, test};
pub use service::{Port, ServiceBuilder, service};
pub use target::{ParseTargetError, Target};

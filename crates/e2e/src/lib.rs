//! Tests of Akrobateo on a real cluster: the test library, and the text formats that the library and the `echo` program
//! use.

mod agent_account;
mod agent_objects;
mod agents;
mod answer;
pub mod audit;
pub mod backend;
mod cli;
mod cluster;
mod command;
mod conditions;
mod container_env;
mod cordon;
mod delete;
mod diagnostics;
mod environment;
mod exposure;
mod external_client;
mod failure;
mod faults;
mod load;
mod local_operator;
mod mode;
mod namespace;
mod network_policies;
mod operator;
mod permissions;
mod pods;
mod polling;
mod ports;
mod proxies;
mod proxy_protocol_server;
mod reply;
mod restart;
mod runner;
mod service;
mod settings;
mod snapshot;
mod target;
mod throttle;

pub use agent_account::{AGENT_ACCOUNT, AgentAccount, AgentPod};
pub use agents::Agents;
pub use answer::{Answer, ParseAnswerError};
pub use cli::CommandOutput;
pub use cluster::{Cluster, NodeAddresses};
pub use conditions::exposed_condition;
pub use environment::EnvironmentError;
pub use exposure::{build_targets, ensure_client_address_kept};
pub use external_client::Connections;
pub use failure::{Failure, ensure, ensure_eq};
pub use faults::{Faults, POOL_LABEL};
pub use load::ensure_answers_during;
pub use local_operator::LocalOperator;
pub use mode::TestMode;
pub use namespace::Namespace;
pub use operator::{OPERATOR_ACCOUNT, OPERATOR_NAMESPACE, Operator, PROXIES_NAMESPACE};
pub use permissions::{Permission, Permissions};
pub use pods::{is_ready, restart_count};
pub use polling::{consistently, eventually, eventually_within};
pub use proxy_protocol_server::ProxyProtocolServer;
pub use reply::{ParseReplyError, Reply};
pub use runner::{
    exposed_service_test, exposed_service_test_in_dedicated_mode, fault_test, fault_test_in_dedicated_mode,
    fault_test_in_dedicated_mode_within, fault_test_in_shared_mode, fault_test_in_shared_mode_within, test,
    test_in_dedicated_mode, test_in_shared_mode,
};
pub use service::{PortMapping, ServiceBuilder, service};
pub use snapshot::{Snapshot, differences};
pub use target::{ParseTargetError, Target};

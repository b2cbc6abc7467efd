//! The rights of the operator and of the node agents. Run the other suites first, so that the operator and the agents
//! have used all their permissions.

mod lease_policy;
mod permissions;

//! The rights of the operator and of the node agents. Run the other tests first, so that the operator has used all its
//! permissions.

mod lease_policy;
mod operator;

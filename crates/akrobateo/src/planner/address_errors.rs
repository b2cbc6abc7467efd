//! Finds new errors in the annotations of nodes. Pure.

use akrobateo_services::node_info::{NodeAddressError, NodeInfo};

/// Returns the errors in the annotations of `nodes` that `previous_nodes` did not have.
pub(super) fn new_address_errors(previous_nodes: &[NodeInfo], nodes: &[NodeInfo]) -> Vec<NodeAddressError> {
    let is_known = |error: &NodeAddressError| {
        previous_nodes.iter().any(|node| node.address_error.as_ref() == Some(error))
    };
    nodes.iter().filter_map(|node| node.address_error.clone()).filter(|error| !is_known(error)).collect()
}

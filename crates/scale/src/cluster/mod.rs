//! A cluster without machines: etcd, API server and controller manager, Node objects, and the objects of Akrobateo.

mod control_plane;
mod credentials;
mod nodes;
mod set_up;

pub(crate) use control_plane::{Binaries, ControlPlane};
pub(crate) use credentials::{agent_kubeconfig, issue_tokens, operator_kubeconfig};
pub(crate) use nodes::{address_at, create_nodes, node_address, node_name};
pub(crate) use set_up::{become_node, set_up};

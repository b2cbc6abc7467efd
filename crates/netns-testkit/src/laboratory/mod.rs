//! A cluster's network in namespaces: a client, nodes on one Ethernet segment, pods with backends, and the rules of
//! other programs. Does I/O.
//!
//! [`Options`] describe the laboratory, and [`Laboratory::new`] creates it. Filters of the segment can change later.
//! The namespaces exist until the laboratory is dropped or the test ends.

pub mod addresses;
mod backend;
mod filter;
mod flow;
mod node;
mod options;
mod pod_network;
mod rules;
mod segment;
#[cfg(test)]
mod tests;

pub use backend::Backend;
pub use filter::Filter;
pub use flow::{Answer, Flow, ask};
pub use node::{Node, Pod};
pub use options::{KubeProxy, Options, PodMasquerade, PodNetwork, Underlay, Uplink};

use crate::Namespace;
use segment::Segment;

/// A running laboratory.
#[derive(Debug)]
pub struct Laboratory {
    /// The client. The client has a route to the pods of each node through that node.
    pub client: Namespace,
    /// The nodes.
    pub nodes: Vec<Node>,
    segment: Segment,
}

impl Laboratory {
    /// Creates a laboratory. The whole laboratory works when this function returns.
    pub fn new(options: &Options) -> Self {
        let segment = Segment::new();
        let client = node::new_namespace();
        segment.attach_client(&client);
        let client_uplink = segment::client_uplink(options);
        client.ip(segment::uplink_commands(client_uplink));
        let families = options.segment_families();
        let client_addresses: Vec<_> =
            families.iter().map(|family| addresses::client_address(*family)).collect();
        node::add_segment_addresses(&client, segment::uplink_name(client_uplink), &client_addresses);
        let nodes: Vec<_> =
            (1..=options.node_count).map(|number| Node::new(options, number, &segment)).collect();
        for (node, family) in nodes.iter().flat_map(|node| families.iter().map(move |family| (node, *family)))
        {
            let range = addresses::pod_range(family, node.number);
            client.ip(&format!("route add {range} via {}", node.address(family)));
        }
        Self { client, nodes, segment }
    }

    /// Returns the node with this number. Numbers start at 1.
    pub fn node(&self, number: usize) -> &Node {
        &self.nodes[number - 1]
    }

    /// Returns pod `pod_number` of node `node_number`. The numbers of nodes and pods start at 1.
    pub fn pod(&self, node_number: usize, pod_number: usize) -> &Pod {
        &self.node(node_number).pods[pod_number - 1]
    }

    /// Replaces the filters of the segment.
    pub fn set_filters(&self, filters: &[Filter]) {
        let macs: Vec<_> = self.nodes.iter().map(|node| node.mac.clone()).collect();
        self.segment.set_filters(filters, &macs);
    }

    /// Disconnects a node from the segment.
    pub fn disconnect(&self, node_number: usize) {
        self.segment.set_node_connected(node_number, false);
    }

    /// Connects a node with the segment again.
    pub fn reconnect(&self, node_number: usize) {
        self.segment.set_node_connected(node_number, true);
    }
}

impl Uplink {
    /// Returns true if the kernel can create this uplink. The kernel may lack the module `bonding` or `8021q`.
    pub fn is_supported(self) -> bool {
        segment::is_supported(self)
    }
}

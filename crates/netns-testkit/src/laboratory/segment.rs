//! The Ethernet segment between the nodes and the client: a bridge in its own namespace. Does I/O.

use super::filter::{self, Filter, bridge_port_name};
use super::options::{Options, Uplink};
use crate::Namespace;

/// The interface with which each node and the client are connected to the segment.
pub(crate) const INTERFACE: &str = "eth0";
/// The name of the client's port.
const CLIENT_BRIDGE_PORT: &str = "client";

/// The segment, with one port for each node and one for the client.
#[derive(Debug)]
pub(crate) struct Segment(Namespace);

impl Segment {
    /// Creates a segment without ports.
    pub(crate) fn new() -> Self {
        let namespace = Namespace::new();
        namespace.ip("link add bridge type bridge\nlink set bridge up");
        Self(namespace)
    }

    /// Connects a node.
    pub(crate) fn attach_node(&self, node_number: usize, namespace: &Namespace) {
        self.attach(&bridge_port_name(node_number), namespace);
    }

    /// Connects the client.
    pub(crate) fn attach_client(&self, namespace: &Namespace) {
        self.attach(CLIENT_BRIDGE_PORT, namespace);
    }

    fn attach(&self, bridge_port: &str, namespace: &Namespace) {
        let path = namespace.path();
        self.0.ip(&format!(
            "link add {bridge_port} type veth peer name {INTERFACE} netns {path}\n\
             link set {bridge_port} master bridge up"
        ));
        // The kernel must not merge several TCP segments into one long packet, because a filter would then see a wrong
        // length.
        namespace.ip(&format!("link set {INTERFACE} gso_max_segs 1 up"));
        // The interface must not answer ARP requests for the address of a macvlan device.
        namespace.set_sysctl(&format!("ipv4/conf/{INTERFACE}/arp_ignore"), "1");
    }

    /// Replaces the filters. `macs` has the nodes' MAC addresses.
    pub(crate) fn set_filters(&self, filters: &[Filter], macs: &[String]) {
        self.0.load_nft(&filter::render(filters, macs));
    }

    /// Disconnects a node, or connects the node again.
    pub(crate) fn set_node_connected(&self, node_number: usize, is_connected: bool) {
        let state = if is_connected { "up" } else { "down" };
        self.0.ip(&format!("link set {} {state}", bridge_port_name(node_number)));
    }
}

/// Returns true if the kernel can create the uplink.
pub(crate) fn is_supported(uplink: Uplink) -> bool {
    let namespace = Namespace::new();
    namespace.ip(&format!("link add {INTERFACE} type veth peer name peer\nlink set {INTERFACE} up"));
    namespace.try_ip(uplink_commands(uplink)).is_ok()
}

/// Returns the commands of ip(8) that create the uplink on [`INTERFACE`].
pub(crate) fn uplink_commands(uplink: Uplink) -> &'static str {
    match uplink {
        Uplink::Interface => "",
        Uplink::Bridge => "link add uplink type bridge\nlink set eth0 master uplink\nlink set uplink up\n",
        Uplink::Bond => {
            "link add uplink type bond mode active-backup\nlink set eth0 down\nlink set eth0 master uplink\n\
             link set uplink up\n"
        }
        Uplink::Vlan => "link add link eth0 name uplink type vlan id 100\nlink set uplink up\n",
        Uplink::Macvlan => "link add link eth0 name uplink type macvlan mode bridge\nlink set uplink up\n",
    }
}

/// Returns the name of the device that has a node's address.
pub(crate) fn uplink_name(uplink: Uplink) -> &'static str {
    if uplink == Uplink::Interface { INTERFACE } else { "uplink" }
}

/// Returns the uplink of the client. If the nodes have VLAN devices, the client has a VLAN device too.
pub(crate) fn client_uplink(options: &Options) -> Uplink {
    if options.uplink == Uplink::Vlan { Uplink::Vlan } else { Uplink::Interface }
}

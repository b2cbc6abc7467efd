//! The options of a laboratory: its network, the rules of other programs, and settings. Pure.

use akrobateo_core::family::Family;

/// The network between pods of different nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodNetwork {
    /// Each node has a route to the pods of each other node, as with the bridge plugin and flannel's `host-gw`.
    HostRoutes,
    /// A VXLAN device on each node carries the packets between pods, as with flannel.
    Overlay,
}

/// The packets that a node masquerades for the CNI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodMasquerade {
    /// Packets from this node's pods to addresses outside of the range of all pods.
    OutsideCluster,
    /// Packets from this node's pods to addresses outside of the range of this node's pods, as with `ipMasq` of the
    /// bridge plugin.
    OutsideNode,
    /// The packets of [`Self::OutsideCluster`], and packets from outside of the cluster to pods of other nodes, as with
    /// flannel.
    Flannel,
}

/// The rules of kube-proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KubeProxy {
    /// No rules.
    Absent,
    /// kube-proxy's iptables mode, through the nftables backend of iptables.
    Iptables,
    /// kube-proxy's nftables mode.
    Nftables,
}

/// The device that has the node's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Uplink {
    /// The network interface itself.
    Interface,
    /// A bridge with the network interface as a port.
    Bridge,
    /// A bond with the network interface as its only member. Needs the kernel module `bonding`.
    Bond,
    /// A VLAN device on the network interface. The client has a VLAN device too. Needs the kernel module `8021q`.
    Vlan,
    /// A macvlan device on the network interface. The device and the network interface have different MAC addresses.
    Macvlan,
}

impl Uplink {
    /// All kinds of uplinks.
    pub const ALL: [Self; 5] = [Self::Interface, Self::Bridge, Self::Bond, Self::Vlan, Self::Macvlan];
}

/// The families of the addresses that nodes and the client have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Underlay {
    /// Nodes and the client have an IPv4 and an IPv6 address.
    DualStack,
    /// Nodes and the client have only IPv6 addresses, but pods have addresses of both families.
    Ipv6,
}

/// The options of a laboratory.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "these settings of a node are independent of each other")]
pub struct Options {
    /// The number of nodes, from 1 to 50.
    pub node_count: usize,
    /// The number of pods on each node, each with a backend.
    pub pods_per_node: usize,
    /// The network between pods of different nodes.
    pub pod_network: PodNetwork,
    /// The packets that a node masquerades for the CNI.
    pub pod_masquerade: PodMasquerade,
    /// The rules of kube-proxy.
    pub kube_proxy: KubeProxy,
    /// True if kube-proxy handles packets to node 1's address and port 80 as packets to a load balancer's address.
    pub has_load_balancer_address: bool,
    /// True if portmap also forwards port 80 of each node to the node's last pod. portmap always forwards port 8099.
    pub has_host_port_80: bool,
    /// True if the filter table drops all forwarded packets except those that kube-proxy or the CNI accepts.
    pub drops_forwarded_packets: bool,
    /// The mode of the reverse path filter (`rp_filter`) on all interfaces of the nodes.
    pub reverse_path_filter: u8,
    /// True if packets that a node's bridge forwards also pass the rules of iptables and nftables
    /// (`bridge-nf-call-iptables`).
    pub filters_bridged_packets: bool,
    /// The device that has the node's address.
    pub uplink: Uplink,
    /// The families of the nodes' addresses.
    pub underlay: Underlay,
}

impl Default for Options {
    /// Three nodes with two pods each, host routes, and kube-proxy and portmap in iptables mode.
    fn default() -> Self {
        Self {
            node_count: 3,
            pods_per_node: 2,
            pod_network: PodNetwork::HostRoutes,
            pod_masquerade: PodMasquerade::OutsideCluster,
            kube_proxy: KubeProxy::Iptables,
            has_load_balancer_address: false,
            has_host_port_80: false,
            drops_forwarded_packets: true,
            reverse_path_filter: 0,
            filters_bridged_packets: true,
            uplink: Uplink::Interface,
            underlay: Underlay::DualStack,
        }
    }
}

impl Options {
    /// Returns the families of the addresses that nodes and the client have.
    pub fn segment_families(&self) -> &'static [Family] {
        match self.underlay {
            Underlay::DualStack => &Family::ALL,
            Underlay::Ipv6 => &[Family::V6],
        }
    }

    /// Returns the number of the Service that has node 1's address as its load balancer's address, or `None` if no
    /// Service has it. The endpoint of this Service is on node 2 if there are several nodes.
    pub(crate) fn load_balancer_service_number(&self, family: Family) -> Option<usize> {
        let is_forwarded = self.has_load_balancer_address && self.segment_families().contains(&family);
        is_forwarded.then_some(self.node_count.min(2))
    }
}

//! A node of the laboratory with its pods: devices, addresses, routes and sysctls. Does I/O.

use std::net::IpAddr;
use std::process::Command;

use akrobateo_core::family::Family;

use super::addresses::{client_address, node_address, pod_address, pod_gateway, segment_prefix_len};
use super::backend::Backend;
use super::options::Options;
use super::segment::{self, Segment};
use super::{pod_network, rules};
use crate::Namespace;

/// The bridge of a node's pods.
const POD_BRIDGE: &str = "cni0";

/// A node.
#[derive(Debug)]
pub struct Node {
    /// The node's number, from 1.
    pub number: usize,
    /// The node's network namespace.
    pub namespace: Namespace,
    /// The device that has the node's addresses.
    pub uplink: &'static str,
    /// The MAC address of the uplink.
    pub mac: String,
    /// The node's addresses.
    pub addresses: Vec<IpAddr>,
    /// The node's pods.
    pub pods: Vec<Pod>,
}

/// A pod with a running backend.
#[derive(Debug)]
pub struct Pod {
    /// The name in the answers of the pod's backend, for example `n2p1` for the first pod of node 2.
    pub name: String,
    /// The pod's network namespace.
    pub namespace: Namespace,
    /// The pod's addresses, IPv4 first.
    pub addresses: [IpAddr; 2],
    _backend: Backend,
}

impl Node {
    /// Creates a node and its pods, and connects the node with the segment.
    pub(crate) fn new(options: &Options, number: usize, segment: &Segment) -> Self {
        let namespace = new_namespace();
        segment.attach_node(number, &namespace);
        let uplink = segment::uplink_name(options.uplink);
        namespace.ip(segment::uplink_commands(options.uplink));
        let addresses: Vec<_> =
            options.segment_families().iter().map(|family| node_address(*family, number)).collect();
        add_uplink_addresses(&namespace, options, uplink, &addresses);
        set_sysctls(&namespace, options);
        namespace.ip(&format!("link add {POD_BRIDGE} type bridge\nlink set {POD_BRIDGE} up"));
        namespace.add_addresses(POD_BRIDGE, &Family::ALL.map(|family| pod_gateway(family, number)));
        namespace.ip(&pod_network::ip_commands(options, number, uplink));
        if pod_network::pod_mtu(options).is_some() {
            let entries = pod_network::bridge_commands(options, number);
            namespace.run_program(Command::new("bridge").args(["-batch", "-"]), &entries);
        }
        let pods =
            (1..=options.pods_per_node).map(|pod| Pod::new(options, &namespace, number, pod)).collect();
        rules::load(options, number, &namespace);
        set_reverse_path_filter(&namespace, options.reverse_path_filter);
        let mac = mac_address(&namespace, uplink);
        Self { number, namespace, uplink, mac, addresses, pods }
    }

    /// Restores the node's addresses and routes, which the kernel deletes when the uplink is down or replaced.
    pub fn restore_uplink(&self, options: &Options) {
        self.namespace.ip(&format!("address flush dev {}", self.uplink));
        add_uplink_addresses(&self.namespace, options, self.uplink, &self.addresses);
        self.namespace.ip(&pod_network::ip_commands(options, self.number, self.uplink));
    }

    /// Returns the node's address in one family. A node in an IPv6 underlay has no IPv4 address.
    pub fn address(&self, family: Family) -> IpAddr {
        let address = self.addresses.iter().find(|address| Family::from_ip(**address) == family);
        *address.unwrap_or_else(|| panic!("node {} has no {family} address", self.number))
    }
}

impl Pod {
    fn new(options: &Options, node: &Namespace, node_number: usize, number: usize) -> Self {
        let namespace = new_namespace();
        let port = format!("pod{number}");
        node.ip(&format!(
            "link add {port} type veth peer name eth0 netns {}\nlink set {port} master {POD_BRIDGE} up\n\
             link set {port} type bridge_slave hairpin on",
            namespace.path()
        ));
        if let Some(mtu) = pod_network::pod_mtu(options) {
            node.ip(&format!("link set {port} mtu {mtu}"));
            namespace.ip(&format!("link set eth0 mtu {mtu}"));
        }
        namespace.ip("link set eth0 gso_max_segs 1 up");
        let addresses = Family::ALL.map(|family| pod_address(family, node_number, number));
        namespace.add_addresses("eth0", &addresses);
        namespace.add_default_routes(&Family::ALL.map(|family| pod_gateway(family, node_number)));
        let name = format!("n{node_number}p{number}");
        let backend = Backend::start(&namespace, &name);
        Self { name, namespace, addresses, _backend: backend }
    }

    /// Returns the pod's address in one family.
    pub fn address(&self, family: Family) -> IpAddr {
        self.addresses[usize::from(family == Family::V6)]
    }
}

/// Creates a namespace whose IPv6 addresses are usable at once. The namespace ignores ICMP redirects, because a
/// redirect would change the routes that a test examines.
pub(crate) fn new_namespace() -> Namespace {
    let namespace = Namespace::new();
    namespace.set_sysctl("ipv6/conf/default/accept_dad", "0");
    for (family, scope) in [("ipv4", "all"), ("ipv4", "default"), ("ipv6", "all"), ("ipv6", "default")] {
        namespace.set_sysctl(&format!("{family}/conf/{scope}/accept_redirects"), "0");
    }
    namespace
}

/// Adds addresses of the segment to an interface.
pub(crate) fn add_segment_addresses(namespace: &Namespace, interface: &str, addresses: &[IpAddr]) {
    for address in addresses {
        let prefix_len = segment_prefix_len(Family::from_ip(*address));
        let options = if address.is_ipv6() { "nodad" } else { "" };
        namespace.ip(&format!("address add {address}/{prefix_len} dev {interface} {options}"));
    }
}

/// Adds the node's addresses, and the routes to other networks.
fn add_uplink_addresses(namespace: &Namespace, options: &Options, uplink: &str, addresses: &[IpAddr]) {
    add_segment_addresses(namespace, uplink, addresses);
    let gateways: Vec<_> = options.segment_families().iter().map(|family| client_address(*family)).collect();
    namespace.add_default_routes(&gateways);
}

fn set_sysctls(namespace: &Namespace, options: &Options) {
    let bridge_nf_call_value = if options.filters_bridged_packets { "1" } else { "0" };
    for (path, value) in [
        ("ipv4/ip_forward", "1"),
        ("ipv6/conf/all/forwarding", "1"),
        ("bridge/bridge-nf-call-iptables", bridge_nf_call_value),
        ("bridge/bridge-nf-call-ip6tables", bridge_nf_call_value),
        ("netfilter/nf_conntrack_tcp_be_liberal", "0"),
    ] {
        namespace.set_sysctl(path, value);
    }
}

fn set_reverse_path_filter(namespace: &Namespace, value: u8) {
    let interfaces = namespace.run(|| std::fs::read_dir("/proc/sys/net/ipv4/conf").unwrap());
    for interface in interfaces {
        let name = interface.unwrap().file_name().into_string().unwrap();
        namespace.set_sysctl(&format!("ipv4/conf/{name}/rp_filter"), &value.to_string());
    }
}

/// Returns the MAC address of an interface.
pub(crate) fn mac_address(namespace: &Namespace, interface: &str) -> String {
    let output = namespace.run_program(Command::new("ip").args(["-brief", "link", "show", interface]), "");
    output.split_whitespace().nth(2).unwrap().to_owned()
}

//! Chooses the uplink of a node. Pure.

use std::net::IpAddr;

use links::MacAddress;

use super::error::HostError;
use super::interface::{Interface, LOOPBACK_INDEX};

/// The network of the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostNetwork {
    /// The name of the network interface that has the first local address of the node.
    pub uplink: String,
    /// The MAC address of the uplink. `None` if the uplink has no MAC address, for example a `tun` interface.
    pub mac: Option<MacAddress>,
    /// The MTU of the uplink.
    pub mtu: u32,
    /// The node's addresses that belong to an interface of the node, in the order of the Node's status.
    ///
    /// The node's other addresses belong to a NAT outside of the node. Packets with these destination addresses never
    /// arrive at the node.
    pub local_addresses: Vec<IpAddr>,
}

impl HostNetwork {
    /// Finds the uplink and the local addresses.
    ///
    /// The function chooses the loopback interface if no other interface has an address of the node. If several
    /// interfaces have the same address, an interface that is up takes precedence. For example, kube-proxy's interface
    /// `kube-ipvs0` may have the addresses of other interfaces, but this interface is down.
    pub(super) fn new(interfaces: &[Interface], node_addresses: &[IpAddr]) -> Result<Self, HostError> {
        if node_addresses.is_empty() {
            return Err(HostError::NoNodeAddress);
        }
        let is_local =
            |address: &IpAddr| interfaces.iter().any(|interface| interface.addresses.contains(address));
        let local_addresses: Vec<_> = node_addresses.iter().copied().filter(is_local).collect();
        let uplink = interfaces.iter().filter_map(|interface| {
            let position =
                local_addresses.iter().position(|address| interface.addresses.contains(address))?;
            let is_loopback = interface.index == LOOPBACK_INDEX;
            Some(((is_loopback, position, !interface.is_up, interface.index), interface))
        });
        let Some((_, uplink)) = uplink.min_by_key(|(precedence, _)| *precedence) else {
            return Err(HostError::NoInterface(node_addresses.to_vec()));
        };
        Ok(Self { uplink: uplink.name.clone(), mac: uplink.mac, mtu: uplink.mtu, local_addresses })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_ips(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn interface(index: u32, name: &str, addresses: &[&str]) -> Interface {
        Interface {
            index,
            name: name.to_owned(),
            is_up: true,
            mac: Some(MacAddress([2, 0, 0, 0, 0, 1])),
            mtu: 1500,
            addresses: parse_ips(addresses),
        }
    }

    fn find_uplink(interfaces: &[Interface], node_addresses: &[&str]) -> String {
        HostNetwork::new(interfaces, &parse_ips(node_addresses)).unwrap().uplink
    }

    #[test]
    fn uplink_has_the_first_local_address_of_the_node() {
        let interfaces =
            [interface(2, "eth0", &["192.0.2.1"]), interface(3, "eth1", &["198.51.100.1", "2001:db8::1"])];
        for (node_addresses, uplink) in [
            (&["192.0.2.1", "198.51.100.1"][..], "eth0"),
            (&["198.51.100.1", "192.0.2.1"], "eth1"),
            (&["203.0.113.7", "2001:db8::1", "192.0.2.1"], "eth1"),
        ] {
            assert_eq!(find_uplink(&interfaces, node_addresses), uplink, "{node_addresses:?}");
        }
    }

    #[test]
    fn address_behind_a_nat_is_not_local() {
        let interfaces = [interface(2, "eth0", &["192.0.2.1", "192.0.2.9"])];
        let network = HostNetwork::new(&interfaces, &parse_ips(&["203.0.113.7", "192.0.2.1"])).unwrap();
        assert_eq!(network.local_addresses, parse_ips(&["192.0.2.1"]));
    }

    #[test]
    fn interface_that_is_up_takes_precedence_for_the_same_address() {
        let mut ipvs = interface(2, "kube-ipvs0", &["192.0.2.1"]);
        ipvs.is_up = false;
        assert_eq!(
            find_uplink(&[ipvs.clone(), interface(3, "eth0", &["192.0.2.1"])], &["192.0.2.1"]),
            "eth0"
        );
        assert_eq!(find_uplink(&[ipvs], &["192.0.2.1"]), "kube-ipvs0");
    }

    #[test]
    fn loopback_interface_is_the_uplink_only_without_another_interface() {
        let loopback = interface(LOOPBACK_INDEX, "lo", &["127.0.0.1", "192.0.2.1"]);
        let node_addresses = ["192.0.2.1", "198.51.100.1"];
        assert_eq!(find_uplink(std::slice::from_ref(&loopback), &node_addresses), "lo");
        assert_eq!(
            find_uplink(&[loopback, interface(2, "eth0", &["198.51.100.1"])], &node_addresses),
            "eth0"
        );
    }

    #[test]
    fn error_lists_the_missing_addresses() {
        let interfaces = [interface(2, "eth0", &["192.0.2.1"])];
        let error = HostNetwork::new(&interfaces, &parse_ips(&["203.0.113.7", "2001:db8::9"])).unwrap_err();
        assert!(error.to_string().contains("(203.0.113.7, 2001:db8::9)"), "{error}");
        assert!(matches!(HostNetwork::new(&interfaces, &[]), Err(HostError::NoNodeAddress)));
    }
}

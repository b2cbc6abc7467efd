//! The addresses and ports of a laboratory. Pure.
//!
//! The numbers of nodes start at 1. On each node, the numbers of pods start at 1 too.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use akrobateo_core::family::Family;

/// The port on which the backends in the pods listen.
pub const BACKEND_PORT: u16 = 8080;
/// The port of the Services' cluster IPs, and of the load balancer's address.
pub const CLUSTER_IP_PORT: u16 = 80;
/// The port of each node that portmap forwards to the node's last pod.
pub const HOST_PORT: u16 = 8099;

/// Returns the prefix length of the addresses of nodes and of the client.
pub(crate) const fn segment_prefix_len(family: Family) -> u8 {
    match family {
        Family::V4 => 24,
        Family::V6 => 64,
    }
}

/// Returns the range of all pods of the cluster, in CIDR notation.
pub const fn cluster_pod_range(family: Family) -> &'static str {
    match family {
        Family::V4 => "10.244.0.0/16",
        Family::V6 => "fd44::/16",
    }
}

/// Returns the range of a node's pods, in CIDR notation.
pub fn pod_range(family: Family, node_number: usize) -> String {
    match family {
        Family::V4 => format!("10.244.{node_number}.0/24"),
        Family::V6 => format!("fd44:{node_number}::/64"),
    }
}

/// Returns the address of a node.
pub fn node_address(family: Family, node_number: usize) -> IpAddr {
    segment_address(family, 10 + node_number)
}

/// Returns the address of the client. The client is also the default gateway of the nodes, but does not forward
/// packets.
pub fn client_address(family: Family) -> IpAddr {
    segment_address(family, 100)
}

/// Returns the address of a pod.
pub fn pod_address(family: Family, node_number: usize, pod_number: usize) -> IpAddr {
    pod_network_address(family, node_number, 9 + pod_number)
}

/// Returns the address of a node's bridge, which is the gateway of the node's pods.
pub fn pod_gateway(family: Family, node_number: usize) -> IpAddr {
    pod_network_address(family, node_number, 1)
}

/// Returns the cluster IP of Service `service_number`. The endpoint of this Service is the first pod of the node with
/// the same number.
pub fn cluster_ip(family: Family, service_number: usize) -> IpAddr {
    let service_octet = octet(service_number);
    match family {
        Family::V4 => Ipv4Addr::new(10, 96, 0, service_octet).into(),
        Family::V6 => Ipv6Addr::new(0xfd96, 0, 0, 0, 0, 0, 0, u16::from(service_octet)).into(),
    }
}

/// Returns the node port of Service `service_number`.
pub fn node_port(service_number: usize) -> u16 {
    30080 + u16::from(octet(service_number))
}

fn segment_address(family: Family, host: usize) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(10, 99, 0, octet(host)).into(),
        Family::V6 => Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0, decimal_digits_as_hex(host)).into(),
    }
}

fn pod_network_address(family: Family, node_number: usize, host: usize) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(10, 244, octet(node_number), octet(host)).into(),
        Family::V6 => {
            let node_digits = decimal_digits_as_hex(node_number);
            Ipv6Addr::new(0xfd44, node_digits, 0, 0, 0, 0, 0, decimal_digits_as_hex(host)).into()
        }
    }
}

fn octet(number: usize) -> u8 {
    u8::try_from(number).unwrap()
}

/// Returns a number whose hexadecimal digits are the decimal digits of `number`, so that addresses of both families
/// look alike.
fn decimal_digits_as_hex(number: usize) -> u16 {
    u16::from_str_radix(&number.to_string(), 16).unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_both_families_look_alike() {
        assert_eq!(node_address(Family::V4, 2).to_string(), "10.99.0.12");
        assert_eq!(node_address(Family::V6, 2).to_string(), "fd99::12");
        assert_eq!(pod_address(Family::V4, 11, 1).to_string(), "10.244.11.10");
        assert_eq!(pod_address(Family::V6, 11, 1).to_string(), "fd44:11::10");
        assert_eq!(pod_range(Family::V6, 11), "fd44:11::/64");
        assert_eq!(cluster_ip(Family::V6, 3).to_string(), "fd96::3");
    }
}

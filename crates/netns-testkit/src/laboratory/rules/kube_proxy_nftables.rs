//! The tables of kube-proxy's nftables mode, in the format of nft(8). Pure.

use std::fmt::Write;

use akrobateo_core::family::Family;

use super::super::addresses::{
    BACKEND_PORT, CLUSTER_IP_PORT, cluster_ip, cluster_pod_range, node_address, node_port, pod_address,
};
use super::super::options::Options;

const PROTOCOLS: [&str; 2] = ["tcp", "udp"];

/// Returns the table of a node.
pub(super) fn render(options: &Options, node_number: usize, family: Family) -> String {
    let (ip, address_type) = match family {
        Family::V4 => ("ip", "ipv4_addr"),
        Family::V6 => ("ip6", "ipv6_addr"),
    };
    let mut map_elements = MapElements::default();
    let mut chains = String::new();
    for (service_number, protocol) in
        (1..=options.node_count).flat_map(|service_number| PROTOCOLS.map(|name| (service_number, name)))
    {
        map_elements.add_service(options, family, service_number, protocol);
        add_service_chains(&mut chains, family, ip, service_number, protocol);
    }
    let node_addresses = if options.segment_families().contains(&family) {
        format!("elements = {{ {} }}", node_address(family, node_number))
    } else {
        String::new()
    };
    format!(
        "table {ip} kube-proxy {{
  set nodeport-ips {{ type {address_type}; {node_addresses}
  }}
  map service-ips {{ type {address_type} . inet_proto . inet_service : verdict; elements = {{ {} }}
  }}
  map service-nodeports {{ type inet_proto . inet_service : verdict; elements = {{ {} }}
  }}
  map firewall-ips {{ type {address_type} . inet_proto . inet_service : verdict;
  }}
  chain mark-for-masquerade {{ meta mark set meta mark or 0x4000
  }}
  chain masquerading {{ meta mark and 0x4000 == 0 return
    meta mark set meta mark xor 0x4000
    masquerade fully-random
  }}
{chains}  chain services {{
    {ip} daddr . meta l4proto . th dport vmap @service-ips
    {ip} daddr @nodeport-ips meta l4proto . th dport vmap @service-nodeports
  }}
  chain firewall-check {{ {ip} daddr . meta l4proto . th dport vmap @firewall-ips
  }}
  chain nat-prerouting {{ type nat hook prerouting priority dstnat; jump services
  }}
  chain nat-output {{ type nat hook output priority -100; jump services
  }}
  chain nat-postrouting {{ type nat hook postrouting priority srcnat; jump masquerading
  }}
  chain filter-prerouting {{ type filter hook prerouting priority -110; ct state new jump firewall-check
  }}
  chain filter-output {{ type filter hook output priority -110; ct state new jump firewall-check
  }}
}}
",
        map_elements.service_ips.join(", "),
        map_elements.node_ports.join(", "),
    )
}

/// The elements of two maps: from an address and a port to a chain, and from a node port to a chain.
#[derive(Debug, Default)]
struct MapElements {
    service_ips: Vec<String>,
    node_ports: Vec<String>,
}

impl MapElements {
    fn add_service(&mut self, options: &Options, family: Family, service_number: usize, protocol: &str) {
        let key = format!("{protocol} . {CLUSTER_IP_PORT}");
        let address = cluster_ip(family, service_number);
        self.service_ips.push(format!("{address} . {key} : goto service-{service_number}-{protocol}"));
        self.node_ports.push(format!(
            "{protocol} . {} : goto external-{service_number}-{protocol}",
            node_port(service_number)
        ));
        if options.load_balancer_service_number(family) == Some(service_number) {
            let address = node_address(family, 1);
            self.service_ips.push(format!("{address} . {key} : goto external-{service_number}-{protocol}"));
        }
    }
}

fn add_service_chains(chains: &mut String, family: Family, ip: &str, service_number: usize, protocol: &str) {
    let (pods, endpoint) = (cluster_pod_range(family), pod_address(family, service_number, 1));
    let cluster_ip = cluster_ip(family, service_number);
    let target = std::net::SocketAddr::new(endpoint, BACKEND_PORT);
    let id = format!("{service_number}-{protocol}");
    write!(
        chains,
        "  chain endpoint-{id} {{ {ip} saddr {endpoint} jump mark-for-masquerade
    meta l4proto {protocol} dnat to {target}
  }}
  chain service-{id} {{ {ip} daddr {cluster_ip} {protocol} dport {CLUSTER_IP_PORT} {ip} saddr != {pods} jump mark-for-masquerade
    numgen random mod 1 vmap {{ 0 : goto endpoint-{id} }}
  }}
  chain external-{id} {{ jump mark-for-masquerade
    goto service-{id}
  }}
"
    )
    .unwrap();
}

//! The tables of kube-proxy's nftables mode, in the format of nft(8). Pure.

use std::fmt::Write;

use akrobateo_core::family::Family;

use super::super::addresses::{
    BACKEND_PORT, SERVICE_PORT, cluster_ip, cluster_pod_range, node_address, node_port, pod_address,
};
use super::super::options::Options;

const PROTOCOLS: [&str; 2] = ["tcp", "udp"];

/// Returns the table of a node.
pub(super) fn render(options: &Options, node: usize, family: Family) -> String {
    let (ip, address_type) = match family {
        Family::V4 => ("ip", "ipv4_addr"),
        Family::V6 => ("ip6", "ipv6_addr"),
    };
    let mut maps = Maps::default();
    let mut chains = String::new();
    for (service, protocol) in (1..=options.nodes).flat_map(|service| PROTOCOLS.map(|name| (service, name))) {
        maps.add_service(options, family, service, protocol);
        add_service_chains(&mut chains, family, ip, service, protocol);
    }
    let node_addresses = if options.segment_families().contains(&family) {
        format!("elements = {{ {} }}", node_address(family, node))
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
        maps.service_ips.join(", "),
        maps.node_ports.join(", "),
    )
}

/// The elements of the maps from addresses and ports to chains.
#[derive(Debug, Default)]
struct Maps {
    service_ips: Vec<String>,
    node_ports: Vec<String>,
}

impl Maps {
    fn add_service(&mut self, options: &Options, family: Family, service: usize, protocol: &str) {
        let key = format!("{protocol} . {SERVICE_PORT}");
        let address = cluster_ip(family, service);
        self.service_ips.push(format!("{address} . {key} : goto service-{service}-{protocol}"));
        self.node_ports
            .push(format!("{protocol} . {} : goto external-{service}-{protocol}", node_port(service)));
        if options.load_balancer_service(family) == Some(service) {
            let address = node_address(family, 1);
            self.service_ips.push(format!("{address} . {key} : goto external-{service}-{protocol}"));
        }
    }
}

fn add_service_chains(chains: &mut String, family: Family, ip: &str, service: usize, protocol: &str) {
    let (pods, endpoint) = (cluster_pod_range(family), pod_address(family, service, 1));
    let cluster_ip = cluster_ip(family, service);
    let target = std::net::SocketAddr::new(endpoint, BACKEND_PORT);
    let id = format!("{service}-{protocol}");
    write!(
        chains,
        "  chain endpoint-{id} {{ {ip} saddr {endpoint} jump mark-for-masquerade
    meta l4proto {protocol} dnat to {target}
  }}
  chain service-{id} {{ {ip} daddr {cluster_ip} {protocol} dport {SERVICE_PORT} {ip} saddr != {pods} jump mark-for-masquerade
    numgen random mod 1 vmap {{ 0 : goto endpoint-{id} }}
  }}
  chain external-{id} {{ jump mark-for-masquerade
    goto service-{id}
  }}
"
    )
    .unwrap();
}

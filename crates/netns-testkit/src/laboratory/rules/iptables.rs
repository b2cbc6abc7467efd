//! The iptables rules of kube-proxy, portmap and the CNI, in the format of iptables-restore(8). Pure.

use std::fmt::Write;
use std::net::IpAddr;

use akrobateo_core::family::Family;

use super::super::addresses::{
    BACKEND_PORT, CLUSTER_IP_PORT, HOST_PORT, cluster_ip, cluster_pod_range, node_address, node_port,
    pod_address,
};
use super::super::options::{KubeProxy, Options};

const PROTOCOLS: [&str; 2] = ["tcp", "udp"];

/// Returns the rules of a node.
pub(super) fn render(options: &Options, node_number: usize, family: Family) -> String {
    let mut rules = Rules::default();
    if options.kube_proxy == KubeProxy::Iptables {
        add_services(&mut rules, options, family);
    }
    add_host_ports(&mut rules, options, node_number, family);
    let mut text = rules.render("nat", "");
    let mut filter = Rules::default();
    if options.kube_proxy == KubeProxy::Iptables {
        filter.add("FORWARD", "-j KUBE-FORWARD");
        filter.add("KUBE-FORWARD", "-m conntrack --ctstate INVALID -j DROP");
        filter.add("KUBE-FORWARD", "-m mark --mark 0x4000/0x4000 -j ACCEPT");
        filter.add("KUBE-FORWARD", "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT");
    }
    if options.drops_forwarded_packets {
        let pods = cluster_pod_range(family);
        filter.add("FORWARD", &format!("-s {pods} -j ACCEPT"));
        filter.add("FORWARD", &format!("-d {pods} -j ACCEPT"));
    }
    text +=
        &filter.render("filter", if options.drops_forwarded_packets { ":FORWARD DROP [0:0]\n" } else { "" });
    text
}

/// Adds one Service for each node. The Service's only endpoint is the first pod of the node.
fn add_services(rules: &mut Rules, options: &Options, family: Family) {
    rules.add("PREROUTING", "-j KUBE-SERVICES");
    rules.add("OUTPUT", "-j KUBE-SERVICES");
    rules.add("POSTROUTING", "-j KUBE-POSTROUTING");
    rules.add("KUBE-MARK-MASQ", "-j MARK --or-mark 0x4000");
    rules.add("KUBE-POSTROUTING", "-m mark ! --mark 0x4000/0x4000 -j RETURN");
    rules.add("KUBE-POSTROUTING", "-j MARK --xor-mark 0x4000");
    rules.add("KUBE-POSTROUTING", "-j MASQUERADE --random-fully");
    let pods = cluster_pod_range(family);
    for (service_number, protocol) in
        (1..=options.node_count).flat_map(|service_number| PROTOCOLS.map(|name| (service_number, name)))
    {
        let suffix = format!("{service_number}-{}", protocol.to_uppercase());
        let (service_chain, external_chain, endpoint_chain) =
            (format!("KUBE-SVC-{suffix}"), format!("KUBE-EXT-{suffix}"), format!("KUBE-SEP-{suffix}"));
        let match_cluster_ip =
            format!("-d {} -p {protocol} --dport {CLUSTER_IP_PORT}", cluster_ip(family, service_number));
        let endpoint = pod_address(family, service_number, 1);
        rules.add("KUBE-SERVICES", &format!("{match_cluster_ip} -j {service_chain}"));
        if options.load_balancer_service_number(family) == Some(service_number) {
            let address = node_address(family, 1);
            rules.add(
                "KUBE-SERVICES",
                &format!("-d {address} -p {protocol} --dport {CLUSTER_IP_PORT} -j {external_chain}"),
            );
        }
        rules.add(
            "KUBE-NODEPORTS",
            &format!("-p {protocol} --dport {} -j {external_chain}", node_port(service_number)),
        );
        rules.add(&service_chain, &format!("! -s {pods} {match_cluster_ip} -j KUBE-MARK-MASQ"));
        rules.add(&service_chain, &format!("-j {endpoint_chain}"));
        rules.add(&external_chain, "-j KUBE-MARK-MASQ");
        rules.add(&external_chain, &format!("-j {service_chain}"));
        rules.add(&endpoint_chain, &format!("-s {endpoint} -j KUBE-MARK-MASQ"));
        rules.add(
            &endpoint_chain,
            &format!("-p {protocol} -j DNAT --to-destination {}", with_port(endpoint, BACKEND_PORT)),
        );
    }
    rules.add("KUBE-SERVICES", "-m addrtype --dst-type LOCAL -j KUBE-NODEPORTS");
}

/// Adds the host ports of the node's last pod.
fn add_host_ports(rules: &mut Rules, options: &Options, node_number: usize, family: Family) {
    let pod = pod_address(family, node_number, options.pods_per_node);
    rules.add("PREROUTING", "-m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT");
    rules.add("OUTPUT", "-m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT");
    rules.add("POSTROUTING", "-j CNI-HOSTPORT-MASQ");
    rules.add("CNI-HOSTPORT-SETMARK", "-j MARK --or-mark 0x2000");
    rules.add("CNI-HOSTPORT-MASQ", "-m mark --mark 0x2000/0x2000 -j MASQUERADE");
    let ports = [HOST_PORT].into_iter().chain(options.has_host_port_80.then_some(80));
    for (port, protocol) in ports.flat_map(|port| PROTOCOLS.map(|protocol| (port, protocol))) {
        let match_port = format!("-p {protocol} --dport {port}");
        rules.add("CNI-HOSTPORT-DNAT", &format!("{match_port} -j CNI-DN-POD"));
        rules.add("CNI-DN-POD", &format!("{match_port} -s {pod} -j CNI-HOSTPORT-SETMARK"));
        let target = with_port(pod, BACKEND_PORT);
        rules.add("CNI-DN-POD", &format!("{match_port} -j DNAT --to-destination {target}"));
    }
}

fn with_port(address: IpAddr, port: u16) -> String {
    std::net::SocketAddr::new(address, port).to_string()
}

/// Rules in order, with the names of their chains.
#[derive(Debug, Default)]
struct Rules {
    chains: Vec<String>,
    rules: String,
}

impl Rules {
    fn add(&mut self, chain: &str, rule: &str) {
        for name in [Some(chain), rule.rsplit_once("-j ").map(|(_, target)| target)].into_iter().flatten() {
            let is_own_chain = ["KUBE-", "CNI-"].iter().any(|prefix| name.starts_with(prefix));
            if is_own_chain && !self.chains.iter().any(|known| known == name) {
                self.chains.push(name.to_owned());
            }
        }
        writeln!(self.rules, "-A {chain} {rule}").unwrap();
    }

    fn render(&self, table: &str, policies: &str) -> String {
        let mut text = format!("*{table}\n{policies}");
        for chain in &self.chains {
            writeln!(text, ":{chain} - [0:0]").unwrap();
        }
        text + &self.rules + "COMMIT\n"
    }
}

//! The rules of klipper-lb, as its entry script sets them: four iptables commands per port. Does I/O.

use std::process::Command;
use std::time::{Duration, Instant};

use akrobateo_core::Protocol;
use netns_testkit::Namespace;

use crate::network::addr;
use crate::variant::Iptables;

/// Sets the rules of all ports in one shell, and returns the run time of the shell.
///
/// klipper-lb runs one container per port, and its script also detects the iptables mode and the address families. The
/// benchmark skips these steps, and the measured time is shorter than klipper-lb's real time.
pub(crate) fn set_rules(pod: &Namespace, iptables: Iptables, protocol: Protocol, ports: u16) -> Duration {
    let script = build_script(iptables, protocol, ports);
    let start = Instant::now();
    pod.run_program(Command::new("sh").args(["-e", "-s"]), &script);
    start.elapsed()
}

fn build_script(iptables: Iptables, protocol: Protocol, ports: u16) -> String {
    let program = match iptables {
        Iptables::Nft => "iptables-nft",
        Iptables::Legacy => "iptables-legacy",
    };
    let ports = addr::FIRST_SERVICE_PORT..addr::FIRST_SERVICE_PORT + ports;
    let lines: Vec<_> =
        ports.flat_map(|port| rules(protocol, port)).map(|rule| format!("{program} {rule}")).collect();
    lines.join("\n")
}

fn rules(protocol: Protocol, port: u16) -> [String; 4] {
    let ip = addr::CLUSTER_IP;
    [
        format!("-t filter -I FORWARD -s 0.0.0.0/0 -p {protocol} --dport {port} -j ACCEPT"),
        format!("-t filter -A FORWARD -d {ip}/32 -p {protocol} --dport {port} -j DROP"),
        format!("-t nat -I PREROUTING ! -s {ip}/32 -p {protocol} --dport {port} -j DNAT --to {ip}:{port}"),
        format!("-t nat -I POSTROUTING -d {ip}/32 -p {protocol} -j MASQUERADE"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_port_has_four_rules() {
        let script = build_script(Iptables::Legacy, Protocol::Udp, 2);
        let lines: Vec<_> = script.lines().collect();
        assert_eq!(lines.len(), 8);
        assert!(lines.iter().all(|line| line.starts_with("iptables-legacy -t ") && line.contains("-p udp")));
        assert!(lines[6].ends_with("--dport 20001 -j DNAT --to 10.96.3.7:20001"));
        assert!(lines[7].ends_with("-j MASQUERADE"));
    }
}

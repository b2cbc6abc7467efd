//! The rules of the peer, klipper-lb, as its entry script sets them: four calls of iptables per port, one after another.

use std::process::Command;
use std::time::{Duration, Instant};

use super::Protocol;
use crate::failure::Failure;
use crate::namespace::Namespace;
use crate::network::at;
use crate::variant::Iptables;

/// Sets the rules for all ports, one set per port; tells how long it took from the shell's start to its end.
///
/// The peer has a container per port, whose script also looks for the mode of iptables and the family of each address;
/// that is left out, in its favour.
pub(crate) fn set(
    pod: &Namespace,
    iptables: Iptables,
    protocol: Protocol,
    ports: u16,
) -> Result<Duration, Failure> {
    let script = script(iptables, protocol, ports);
    let start = Instant::now();
    pod.feed(Command::new("sh").args(["-e", "-s"]), &script)?;
    Ok(start.elapsed())
}

fn script(iptables: Iptables, protocol: Protocol, ports: u16) -> String {
    let iptables = match iptables {
        Iptables::Nft => "iptables-nft",
        Iptables::Legacy => "iptables-legacy",
    };
    let ports = at::FIRST_PORT..at::FIRST_PORT + ports;
    let lines: Vec<_> =
        ports.flat_map(|port| rules(protocol, port)).map(|rule| format!("{iptables} {rule}")).collect();
    lines.join("\n")
}

fn rules(protocol: Protocol, port: u16) -> [String; 4] {
    let (protocol, to) = (protocol.name(), at::CLUSTER_IP);
    [
        format!("-t filter -I FORWARD -s 0.0.0.0/0 -p {protocol} --dport {port} -j ACCEPT"),
        format!("-t filter -A FORWARD -d {to}/32 -p {protocol} --dport {port} -j DROP"),
        format!("-t nat -I PREROUTING ! -s {to}/32 -p {protocol} --dport {port} -j DNAT --to {to}:{port}"),
        format!("-t nat -I POSTROUTING -d {to}/32 -p {protocol} -j MASQUERADE"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_port_has_its_four_rules_dnat_before_masquerade() {
        let script = script(Iptables::Legacy, Protocol::Udp, 2);
        let lines: Vec<_> = script.lines().collect();
        assert_eq!(lines.len(), 8);
        assert!(lines.iter().all(|line| line.starts_with("iptables-legacy -t ") && line.contains("-p udp")));
        assert!(lines[6].ends_with("--dport 20001 -j DNAT --to 10.96.3.7:20001"));
        assert!(lines[7].ends_with("-j MASQUERADE"));
    }
}

//! Describes the data path in the kernel as text. Pure.

use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::net::SocketAddr;

use akrobateo_core::{Family, Frontend};
use netfilter::nft::{ForeignObject, InstalledTable, Table};

use crate::marks;
use crate::probe::PeerPath;
use crate::table::keys::{PortKey, parse_endpoint, parse_service, service_identity};
use crate::table::{Outcome, PortCount, family_set, paths_in_table, port_counts};

/// Returns a description of the table: one line for each frontend with its endpoints, one line for each path to a peer,
/// and one line for each change by another program.
pub fn describe(installed: Option<&InstalledTable>) -> Result<String, fmt::Error> {
    let Some(installed) = installed else {
        return Ok("no data path is installed in this network namespace\n".to_owned());
    };
    let mut text = String::new();
    let flow_counts = flow_counts(&installed.table);
    for family in Family::ALL {
        let elements = |name: &str| family_set(&installed.table, family, name);
        let mut endpoints_by_port: BTreeMap<PortKey, Vec<SocketAddr>> = BTreeMap::new();
        for (port, endpoint) in elements("endpoints").iter().filter_map(|it| parse_endpoint(family, it)) {
            endpoints_by_port.entry(port).or_default().push(endpoint);
        }
        for element in elements("services") {
            if let Some((address, port)) = parse_service(family, element) {
                let frontend = SocketAddr::new(address, port.port.get());
                let endpoints = endpoints_by_port.get(&port).map_or(&[][..], Vec::as_slice);
                let endpoint_texts: Vec<_> = endpoints.iter().map(ToString::to_string).collect();
                let target = if endpoint_texts.is_empty() {
                    "refused, no endpoint".to_owned()
                } else {
                    endpoint_texts.join(", ")
                };
                let PortKey { protocol, port } = port;
                let (forwarded_count, refused_count) =
                    flow_counts.get(&Frontend { family, protocol, port }).copied().unwrap_or_default();
                let identity = service_identity(element).unwrap_or("unknown");
                let (service, _) = identity.split_once(' ').unwrap_or((identity, ""));
                writeln!(
                    text,
                    "{service}: {protocol} {frontend} -> {target}; {forwarded_count} flows, {refused_count} refused"
                )?;
            }
        }
    }
    for (family, zone, path) in paths_in_table(&installed.table) {
        if let Some(peer) = marks::node_of_conntrack_zone(zone) {
            let path_text = match path {
                PeerPath::Direct => "directly",
                PeerPath::Tunnel => "through the tunnel",
            };
            writeln!(text, "peer {peer} {family}: the client's address is kept, {path_text}")?;
        }
    }
    for object in &installed.foreign_objects {
        let changed_object = match object {
            ForeignObject::TableFlag => "a flag of the table".to_owned(),
            ForeignObject::Set(name) => format!("the set {name}"),
            ForeignObject::Chain(name) => format!("the chain {name}"),
            ForeignObject::RuleInChain(chain) => format!("a rule in the chain {chain}"),
            ForeignObject::ElementOfSet(set) => format!("an element of the set {set}"),
        };
        writeln!(
            text,
            "changed by another program: {changed_object}; the next change of the agent restores it"
        )?;
    }
    Ok(text)
}

/// Returns the number of forwarded flows, and the number of refused or dropped attempts, for each port.
fn flow_counts(table: &Table) -> BTreeMap<Frontend, (u64, u64)> {
    let mut counts = BTreeMap::<_, (u64, u64)>::new();
    for PortCount { frontend, outcome, count } in port_counts(table) {
        let (forwarded_count, refused_count) = counts.entry(frontend).or_default();
        match outcome {
            Outcome::Forwarded => *forwarded_count += count,
            Outcome::NoEndpoint | Outcome::NotAllowed => *refused_count += count,
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU16;

    use akrobateo_core::Protocol;

    use super::*;
    use crate::config::fixtures::{config, endpoint, service};
    use crate::config::{NodeConfig, Service, ServicePort};
    use crate::table::NodeTables;

    #[test]
    fn description_lists_frontends_endpoints_and_paths() {
        let service_port = |number: u16, endpoints| ServicePort {
            protocol: Protocol::Tcp,
            port: NonZeroU16::new(number).unwrap(),
            endpoints,
        };
        let ports =
            vec![service_port(80, vec![endpoint(10, 1), endpoint(11, 2)]), service_port(81, Vec::new())];
        let service = Service { families: vec![Family::V4], ports, ..service() };
        let mut config = NodeConfig { services: vec![service], ..config() };
        config.peers[0].set_paths([(Family::V4, PeerPath::Direct)].into());
        let mut installed = InstalledTable::from(NodeTables::new(&config).inet);
        installed.foreign_objects.push(ForeignObject::RuleInChain("nat_post".into()));
        assert_eq!(
            describe(Some(&installed)).unwrap(),
            "default/web: tcp 10.99.0.1:80 -> 10.244.1.10:8080, 10.244.2.11:8080; 0 flows, 0 refused\n\
             default/web: tcp 10.99.0.1:81 -> refused, no endpoint; 0 flows, 0 refused\n\
             peer 2 IPv4: the client's address is kept, directly\n\
             changed by another program: a rule in the chain nat_post; the next change of the agent restores it\n"
        );
        assert!(describe(None).unwrap().contains("no data path"));
    }
}

//! Copies of the agent's chains that all packets of a node pass, and the objects of the tunnel. Pure.

use akrobateo_agent::config::NodeConfig;
use akrobateo_agent::table::NodeTables;
use akrobateo_agent::tunnel::Tunnel;
use links::NetworkObjects;
use netfilter::nft::model::{BaseChain, Chain, ChainType, Hook, Table, TableId};

use crate::layout::INTERFACE;
use crate::neighbour_network::Traffic;

/// The number of copies of a chain.
const COPY_COUNT: u8 = 16;
/// The name of the tables with the copies.
const COPIES_TABLE: &str = "akrobateo_copies";
/// The name of a chain without rules. The cost of this chain is the cost of the hook.
pub(crate) const EMPTY_CHAIN: &str = "empty chain";
/// The name of the tunnel's objects.
const TUNNEL_ADDITION_NAME: &str = "tunnel: device, routes and routing rules";

/// An object whose cost is measured. The benchmark adds the object to both nodes.
pub(crate) struct Addition {
    /// The name in tables.
    pub(crate) name: String,
    /// The number of copies.
    pub(crate) copies: u8,
    /// The point at which packets pass the added object.
    pass_point: PassPoint,
    /// The tables to add, one for each node.
    pub(crate) tables: Vec<Table>,
    /// The objects of the tunnel to add, one set for each node.
    pub(crate) tunnels: Vec<NetworkObjects>,
}

/// A point that packets pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PassPoint {
    /// Each packet passes this point once on each node.
    Node,
    /// Each packet that leaves a node through the uplink passes this point.
    UplinkEgress,
}

impl Addition {
    /// Returns the number of times that the packets of a round trip pass the addition, on both nodes together.
    pub(crate) const fn pass_count(&self, traffic: Traffic) -> u8 {
        match (self.pass_point, traffic) {
            (PassPoint::Node, _) => 4,
            (PassPoint::UplinkEgress, Traffic::BetweenPods) => 2,
            // The reply to the client also leaves the first node through the uplink.
            (PassPoint::UplinkEgress, Traffic::KubeProxy) => 3,
        }
    }
}

/// Returns all additions for the configurations of the nodes: an empty chain, the chains, and the tunnel.
pub(crate) fn additions(configs: &[NodeConfig]) -> Vec<Addition> {
    let node_tables: Vec<_> = configs.iter().map(NodeTables::new).collect();
    let inet_tables: Vec<_> = node_tables.iter().map(|tables| &tables.inet).collect();
    let netdev_tables: Vec<_> = node_tables.iter().filter_map(|tables| tables.netdev.as_ref()).collect();
    let empty_chain = Chain::base(EMPTY_CHAIN, ChainType::Filter, Hook::Prerouting, 0, Vec::new());
    let build_addition = |name: &str, pass_point, tables| Addition {
        name: name.to_owned(),
        copies: COPY_COUNT,
        pass_point,
        tables,
        tunnels: Vec::new(),
    };
    let empty_copies = inet_tables.iter().map(|table| copy_chain(table, &empty_chain)).collect();
    let mut additions = vec![build_addition(EMPTY_CHAIN, PassPoint::Node, empty_copies)];
    for tables in [inet_tables, netdev_tables] {
        for chain in tables.first().map_or(&[][..], |table| &table.chains) {
            let Some(pass_point) = pass_point(chain) else { continue };
            let chains = tables.iter().filter_map(|table| Some((table, table.chain(&chain.name)?)));
            let copies = chains.map(|(table, chain)| copy_chain(table, chain)).collect();
            additions.push(build_addition(&chain.name, pass_point, copies));
        }
    }
    let tunnels = configs.iter().filter_map(Tunnel::new).map(|tunnel| tunnel.network_objects()).collect();
    additions.push(Addition {
        copies: 1,
        tunnels,
        ..build_addition(TUNNEL_ADDITION_NAME, PassPoint::Node, Vec::new())
    });
    additions
}

/// Returns the point at which forwarded packets pass a chain, or `None` if forwarded packets do not pass the chain.
fn pass_point(chain: &Chain) -> Option<PassPoint> {
    let BaseChain { chain_type, hook, .. } = chain.base.as_ref()?;
    match hook {
        Hook::Prerouting | Hook::Forward | Hook::Postrouting => {
            (*chain_type != ChainType::Nat).then_some(PassPoint::Node)
        }
        Hook::Egress(names) => {
            names.iter().any(|name| **name == *INTERFACE).then_some(PassPoint::UplinkEgress)
        }
        Hook::Ingress(_) | Hook::Input | Hook::Output => None,
    }
}

/// Returns a table with copies of a chain, and with the sets and regular chains that the chain uses.
fn copy_chain(table: &Table, chain: &Chain) -> Table {
    let expressions =
        |chain: &Chain| chain.rules.iter().flat_map(|rule| rule.expressions.clone()).collect::<Vec<_>>();
    let own_expressions = expressions(chain);
    let is_target = |name: &str| {
        own_expressions.iter().any(|expr| expr.target_chain().is_some_and(|used_name| **used_name == *name))
    };
    let targets: Vec<_> = table.chains.iter().filter(|chain| is_target(&chain.name)).cloned().collect();
    let all_expressions: Vec<_> = targets.iter().chain([chain]).flat_map(expressions).collect();
    let is_used = |name: &str| {
        all_expressions.iter().any(|expr| expr.set_name().is_some_and(|used_name| **used_name == *name))
    };
    let copy = |number: u8| Chain {
        name: format!("copy{number}").into(),
        base: chain
            .base
            .clone()
            .map(|base| BaseChain { priority: base.priority + i32::from(number), ..base }),
        rules: chain.rules.clone(),
    };
    Table {
        id: TableId::new(table.id.family, COPIES_TABLE),
        sets: table.sets.iter().filter(|set| is_used(&set.name)).cloned().collect(),
        chains: targets.iter().cloned().chain((0..COPY_COUNT).map(copy)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use akrobateo_agent::probe::PeerPath;

    use super::*;
    use crate::agent;
    use crate::layout::NODES;
    use crate::neighbours::service;

    #[test]
    fn chains_of_forwarded_packets_are_copied_with_their_sets() {
        let additions =
            additions(&NODES.map(|node| agent::config(node, Some(PeerPath::Direct), &[service()])));
        let pass_counts: Vec<_> = additions
            .iter()
            .map(|addition| (&*addition.name, addition.pass_count(Traffic::BetweenPods)))
            .collect();
        assert!(
            pass_counts.contains(&("raw_pre", 4)) && pass_counts.contains(&("uplink", 2)),
            "{pass_counts:?}"
        );
        let has_other_chain =
            pass_counts.iter().any(|(name, _)| ["nat_pre", "steer_out", "tunnel_in"].contains(name));
        assert!(!has_other_chain, "{pass_counts:?}");
        for addition in &additions {
            assert_eq!(addition.tables.len() + addition.tunnels.len(), 2);
            for table in &addition.tables {
                let copies = table.chains.iter().filter(|chain| chain.base.is_some()).count();
                assert_eq!((table.check(), copies), (Ok(()), 16));
            }
        }
    }
}

//! Established flows survive changes of the configuration, if their endpoints stay.

use std::net::SocketAddr;

use akrobateo_agent::probe::Way;

use netns_testkit::laboratory::{Flow, Options};
use netns_testkit::{DEADLINE, isolated};

use crate::cluster::{Cluster, PORT, PROTOCOLS, pod, service};

/// Opens a flow of each protocol and family to a port of a node.
fn open_flows(cluster: &Cluster, node: usize, port: u16) -> Vec<Flow> {
    let addresses = &cluster.laboratory.node(node).addresses;
    let flows = PROTOCOLS.into_iter().flat_map(|protocol| addresses.iter().map(move |ip| (protocol, *ip)));
    flows
        .map(|(protocol, ip)| {
            let to = SocketAddr::new(ip, port);
            cluster.laboratory.client.run(|| Flow::open(protocol, None, to, DEADLINE / 10).unwrap())
        })
        .collect()
}

fn ask_all(flows: &mut [Flow], backend: &str, context: &str) {
    for flow in flows {
        let answer = flow.ask(1).unwrap_or_else(|error| panic!("{context}: {flow:?}: {error}"));
        assert_eq!(answer.backend, backend, "{context}");
    }
}

#[test]
fn established_flows_survive_each_change_of_the_way() {
    isolated(|| {
        let ways = [None, Some(Way::Direct), Some(Way::Tunnel)];
        for (before, after) in ways.into_iter().flat_map(|before| ways.map(|after| (before, after))) {
            let mut cluster = Cluster::start(&Options::default(), before, |laboratory| {
                vec![service(PORT, &pod(laboratory, 2, 1))]
            });
            let mut flows = open_flows(&cluster, 1, PORT);
            ask_all(&mut flows, "n2p1", "before the change");
            cluster.way = after;
            // The nodes learn of the change one after the other.
            for node in [1, 2, 3] {
                cluster.apply(node, &cluster.config(node));
                ask_all(&mut flows, "n2p1", &format!("{before:?} to {after:?} on node {node}"));
            }
        }
    });
}

//! Tests of the counters of the Service ports.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use akrobateo_agent::config::Service;
use akrobateo_agent::data_path::PortCounters;
use akrobateo_agent::table::Outcome;
use akrobateo_core::{Family, Frontend, Protocol};
use netns_testkit::isolated;
use netns_testkit::laboratory::addresses::client_address;
use netns_testkit::laboratory::{Options, ask};

use crate::cluster::{Cluster, PROTOCOLS, SERVICE_PORT, pod_endpoints, service};

/// The time after which a client considers its packet lost. TCP sends a packet again only after a longer time, so each
/// attempt is one packet.
const LOSS_TIMEOUT: Duration = Duration::from_millis(300);
/// The number of connections of each kind.
const CONNECTION_COUNT: u64 = 5;

/// Returns the counts on a node that are not 0.
fn nonzero_counts(cluster: &Cluster, node: usize) -> BTreeMap<(Frontend, Outcome), u64> {
    let counts =
        cluster.laboratory.node(node).namespace.run(|| PortCounters::open().unwrap().read().unwrap());
    let counts = counts.into_iter().filter(|it| it.count != 0);
    counts.map(|it| ((it.frontend, it.outcome), it.count)).collect()
}

fn frontend(protocol: Protocol, port: u16, family: Family) -> Frontend {
    Frontend { family, protocol, port: port.try_into().unwrap() }
}

/// Sends one request over each protocol and family. Returns the number of answers.
fn request_over_all_protocols_and_families(cluster: &Cluster, port: u16) -> usize {
    let mut answer_count = 0;
    for (protocol, family) in PROTOCOLS.into_iter().flat_map(|it| Family::ALL.map(|family| (it, family))) {
        let to = SocketAddr::new(cluster.laboratory.node(1).address(family), port);
        let answer = cluster.laboratory.client.run(|| ask(protocol, to, LOSS_TIMEOUT));
        answer_count += usize::from(answer.is_ok());
    }
    answer_count
}

/// Returns the expected counts of a port.
fn expected_counts(
    port: u16,
    outcomes: &[(Family, Outcome, u64)],
) -> impl Iterator<Item = ((Frontend, Outcome), u64)> {
    PROTOCOLS.into_iter().flat_map(move |protocol| {
        { outcomes.iter() }
            .map(move |(family, outcome, count)| ((frontend(protocol, port, *family), *outcome), *count))
    })
}

#[test]
fn connections_are_counted_by_port_and_outcome() {
    isolated(|| {
        let cluster = Cluster::start(&Options::default(), None, |laboratory| {
            let endpoints = pod_endpoints(laboratory, 2, 1);
            let client_range = format!("{}/32", client_address(Family::V4)).parse().unwrap();
            vec![
                service(SERVICE_PORT, &endpoints),
                service(SERVICE_PORT + 1, &[]),
                Service { source_ranges: Some(vec![client_range]), ..service(SERVICE_PORT + 2, &endpoints) },
            ]
        });
        for _ in 0..CONNECTION_COUNT {
            assert_eq!(request_over_all_protocols_and_families(&cluster, SERVICE_PORT), 4);
            assert_eq!(request_over_all_protocols_and_families(&cluster, SERVICE_PORT + 1), 0);
            assert_eq!(request_over_all_protocols_and_families(&cluster, SERVICE_PORT + 2), 2);
        }
        let count_all = |outcome| Family::ALL.map(|family| (family, outcome, CONNECTION_COUNT));
        let restricted_counts = [
            (Family::V4, Outcome::Forwarded, CONNECTION_COUNT),
            (Family::V6, Outcome::NotAllowed, CONNECTION_COUNT),
        ];
        let expected: BTreeMap<_, _> = expected_counts(SERVICE_PORT, &count_all(Outcome::Forwarded))
            .chain(expected_counts(SERVICE_PORT + 1, &count_all(Outcome::NoEndpoint)))
            .chain(expected_counts(SERVICE_PORT + 2, &restricted_counts))
            .collect();
        assert_eq!(nonzero_counts(&cluster, 1), expected);
        // The node of the endpoint does not count the connections again.
        assert_eq!(nonzero_counts(&cluster, 2), BTreeMap::new());
    });
}

#[test]
fn counters_survive_a_restart_of_the_agent_and_changes_of_endpoints() {
    isolated(|| {
        let mut cluster = Cluster::start(&Options::default(), None, |laboratory| {
            vec![service(SERVICE_PORT, &pod_endpoints(laboratory, 2, 1))]
        });
        request_over_all_protocols_and_families(&cluster, SERVICE_PORT);
        let before = nonzero_counts(&cluster, 1);
        assert_eq!(before.len(), 4);
        let both_pods =
            [pod_endpoints(&cluster.laboratory, 1, 1), pod_endpoints(&cluster.laboratory, 2, 1)].concat();
        for endpoints in [both_pods, Vec::new(), pod_endpoints(&cluster.laboratory, 2, 1)] {
            cluster.services = vec![service(SERVICE_PORT, &endpoints), service(SERVICE_PORT + 1, &endpoints)];
            // A new data path reads the tables like a restarted agent.
            cluster.apply_all();
            assert_eq!(nonzero_counts(&cluster, 1), before);
        }
        request_over_all_protocols_and_families(&cluster, SERVICE_PORT);
        assert_eq!(
            nonzero_counts(&cluster, 1),
            before.iter().map(|(key, count)| (*key, count + 1)).collect()
        );
        // The counters of a deleted Service disappear.
        cluster.services.remove(0);
        cluster.apply_all();
        request_over_all_protocols_and_families(&cluster, SERVICE_PORT + 1);
        let ports: Vec<_> =
            nonzero_counts(&cluster, 1).into_keys().map(|(frontend, _)| frontend.port.get()).collect();
        assert_eq!(ports, [SERVICE_PORT + 1; 4]);
    });
}

#[test]
fn node_without_a_table_has_no_counters() {
    isolated(|| {
        assert_eq!(PortCounters::open().unwrap().read().unwrap(), []);
    });
}

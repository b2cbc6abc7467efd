//! The program nft lists the tables, as administrators do when they search for a fault.

use std::num::NonZeroU32;
use std::process::Command;

use akrobateo_agent::config::Service;
use akrobateo_agent::probe::PeerPath;
use akrobateo_core::{Family, Protocol};
use netns_testkit::isolated;
use netns_testkit::laboratory::Options;

use crate::cluster::{Cluster, SERVICE_PORT, pod_endpoints, service};

#[test]
fn nft_program_lists_all_kinds_of_services() {
    isolated(|| {
        for path in PeerPath::ALL {
            let cluster = Cluster::start(&Options::default(), Some(path), |laboratory| {
                let endpoints = [pod_endpoints(laboratory, 1, 1), pod_endpoints(laboratory, 2, 1)].concat();
                vec![
                    Service {
                        affinity_seconds: NonZeroU32::new(10_800),
                        ..service(SERVICE_PORT, &endpoints)
                    },
                    Service {
                        source_ranges: Some(vec!["192.0.2.0/24".parse().unwrap()]),
                        keeps_client_address: false,
                        ..service(SERVICE_PORT + 1, &endpoints)
                    },
                    service(SERVICE_PORT + 2, &[]),
                ]
            });
            // This request creates an affinity.
            cluster.request(&cluster.laboratory.client, Protocol::Tcp, Family::V4, 1).unwrap();
            let namespace = &cluster.laboratory.node(1).namespace;
            let ruleset = namespace.run_program(Command::new("nft").args(["list", "ruleset"]), "");
            for text in
                ["10.99.0.100 . tcp . 80", "keep2_for_10800s", "reject with tcp reset", "192.0.2.0/24"]
            {
                assert!(ruleset.contains(text), "{text}: {ruleset}");
            }
        }
    });
}

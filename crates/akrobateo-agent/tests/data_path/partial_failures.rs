//! Services work even if a part of the data path cannot be created, or if an earlier process was killed.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::num::NonZeroU32;

use akrobateo_agent::config::Service;
use akrobateo_agent::probe::{self, PeerPath};
use akrobateo_agent::table::{NodeTables, leads_to_other_sets};
use akrobateo_agent::tunnel;
use akrobateo_core::{Family, Protocol};
use netfilter::nft::client::Nftables;
use netfilter::nft::diff;
use netns_testkit::laboratory::addresses::client_address;
use netns_testkit::laboratory::{Flow, Options, PodNetwork};
use netns_testkit::{DEADLINE, eventually, isolated};

use crate::agent::{endpoint_sees_client_address, start_agent};
use crate::cluster::{Cluster, SERVICE_PORT, pod_endpoints, service};

/// Occupies a UDP port of a node.
fn occupy_port(cluster: &Cluster, node: usize, port: u16) -> UdpSocket {
    cluster.laboratory.node(node).namespace.run(|| UdpSocket::bind(("0.0.0.0", port)).unwrap())
}

#[test]
fn tunnel_keeps_client_addresses_on_nodes_without_ipv6() {
    isolated(|| {
        for scopes in [&["default"][..], &["default", "all"]] {
            let mut cluster = Cluster::new(&Options::default(), Some(PeerPath::Tunnel));
            cluster.families = &[Family::V4];
            cluster.services = vec![service(SERVICE_PORT, &pod_endpoints(&cluster.laboratory, 2, 1))];
            for node in &mut cluster.laboratory.nodes {
                for scope in scopes {
                    node.namespace.set_sysctl(&format!("ipv6/conf/{scope}/disable_ipv6"), "1");
                }
                node.addresses.retain(IpAddr::is_ipv4);
            }
            cluster.apply_all();
            let seen_addresses = cluster.seen_client_addresses(&cluster.laboratory.client, 1, "n2p1");
            assert_eq!(seen_addresses, [client_address(Family::V4)]);
        }
    });
}

#[test]
fn services_change_even_if_the_tunnel_cannot_be_created() {
    isolated(|| {
        let options = Options { pod_network: PodNetwork::Overlay, ..Options::default() };
        let mut cluster = Cluster::new(&options, Some(PeerPath::Tunnel));
        cluster.services = vec![service(SERVICE_PORT, &pod_endpoints(&cluster.laboratory, 2, 1))];
        let port_owner = occupy_port(&cluster, 1, tunnel::TUNNEL_PORT);
        // The clients of endpoints on other nodes are masqueraded.
        let config = cluster.config(1);
        cluster.with_data_path(1, |data_path| {
            data_path.apply(&config).unwrap();
            let error = data_path.tunnel_error().unwrap().to_string();
            assert!(error.contains("Address already in use"), "{error}");
            assert!(data_path.tunnel_retry_at().is_some());
            // The failed attempt does not leave objects in the kernel. The agent repeats the attempt later.
            let changes = data_path.apply(&config).unwrap();
            assert_eq!((changes.nftables_steps, changes.tunnel_changes), (0, 0));
        });
        for family in Family::ALL {
            let answer = cluster.request(&cluster.laboratory.client, Protocol::Tcp, family, 1).unwrap();
            assert_eq!(answer.backend, "n2p1");
            assert_ne!(answer.client.ip(), client_address(family));
        }
        let (agent, reports) = start_agent(&cluster, 1);
        cluster.services = vec![service(SERVICE_PORT, &pod_endpoints(&cluster.laboratory, 1, 2))];
        agent.set_config(1, cluster.config(1));
        eventually("the other pod answers", || {
            let answer = cluster.request(&cluster.laboratory.client, Protocol::Tcp, Family::V4, 1);
            answer.ok().filter(|answer| answer.backend == "n1p2")
        });
        assert_eq!(reports.last_error(), None);
        drop(port_owner);
        // The next process creates the tunnel.
        cluster.services = vec![service(SERVICE_PORT, &pod_endpoints(&cluster.laboratory, 2, 1))];
        drop(agent);
        cluster.apply_all();
        let seen_addresses = cluster.seen_client_addresses(&cluster.laboratory.client, 1, "n2p1");
        assert_eq!(seen_addresses, Family::ALL.map(client_address));
    });
}

#[test]
fn services_change_even_if_the_probe_cannot_start() {
    isolated(|| {
        let mut cluster = Cluster::new(&Options::default(), None);
        cluster.services = vec![service(SERVICE_PORT, &pod_endpoints(&cluster.laboratory, 1, 1))];
        let port_owner = occupy_port(&cluster, 1, probe::PROBE_PORT);
        let agents = [1, 2, 3].map(|node| start_agent(&cluster, node));
        cluster.services = vec![service(SERVICE_PORT, &pod_endpoints(&cluster.laboratory, 2, 1))];
        for (node, (agent, _)) in (1..).zip(&agents) {
            agent.set_config(1, cluster.config(node));
        }
        eventually("the other pod answers", || {
            let answer = cluster.request(&cluster.laboratory.client, Protocol::Tcp, Family::V4, 1);
            answer.ok().filter(|answer| answer.backend == "n2p1")
        });
        assert_eq!(agents[0].1.last_error(), None);
        drop(port_owner);
        eventually("the probe has found a path", || endpoint_sees_client_address(&cluster).then_some(()));
    });
}

#[test]
fn new_process_deletes_flows_and_affinities_that_a_killed_process_left() {
    isolated(|| {
        let service_with_endpoint = |cluster: &Cluster, node| {
            let service = service(SERVICE_PORT, &pod_endpoints(&cluster.laboratory, node, 1));
            vec![Service { affinity_seconds: NonZeroU32::new(600), ..service }]
        };
        for path in [None, Some(PeerPath::Direct)] {
            let mut cluster = Cluster::new(&Options::default(), path);
            cluster.services = service_with_endpoint(&cluster, 2);
            cluster.apply_all();
            let to = SocketAddr::new(cluster.laboratory.node(1).address(Family::V4), SERVICE_PORT);
            let mut flow =
                cluster.laboratory.client.run(|| Flow::open(Protocol::Udp, None, to, DEADLINE / 10).unwrap());
            assert_eq!(flow.ask(1).unwrap().backend, "n2p1");
            let backend = |cluster: &Cluster| {
                cluster.request(&cluster.laboratory.client, Protocol::Tcp, Family::V4, 1).unwrap().backend
            };
            assert_eq!(backend(&cluster), "n2p1");
            cluster.services = service_with_endpoint(&cluster, 3);
            for node in [2, 3] {
                cluster.apply(node, &cluster.config(node));
            }
            // The process has changed the tables, and is killed before it deletes flows and affinities.
            let config = cluster.config(1);
            cluster.laboratory.node(1).namespace.run(|| {
                let nftables = Nftables::open().unwrap();
                let desired = NodeTables::new(&config).inet;
                let installed = nftables.read(&desired.id).unwrap().1;
                let stages = diff(installed.as_ref(), &desired).into_stages(leads_to_other_sets);
                for stage in [stages.additions, stages.changes, stages.deletions] {
                    nftables.execute(&stage).unwrap();
                }
            });
            assert_eq!(flow.ask(1).unwrap().backend, "n2p1");
            let changes = cluster.apply(1, &config);
            assert_eq!((changes.nftables_steps, changes.deleted_flows), (0, 1), "{changes:?}");
            assert_eq!(flow.ask(1).unwrap().backend, "n3p1");
            assert_eq!(backend(&cluster), "n3p1");
            // Another restarted process finds nothing more to delete.
            let changes = cluster.apply(1, &config);
            assert_eq!((changes.deleted_flows, changes.deleted_affinities), (0, 0));
        }
    });
}

//! Tests of running agents: they find the ways to their peers, and restore objects that other programs delete.

use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use akrobateo_agent::agent::{Agent, Modes, Observer};
use akrobateo_agent::data_path::{DataPath, DataPathError};
use akrobateo_agent::probe::Way;
use akrobateo_core::{Family, Protocol};
use netns_testkit::laboratory::addresses::client_address;
use netns_testkit::laboratory::{Filter, Options, PodNetwork};
use netns_testkit::privileges::{CapabilitySet, keep_capabilities};
use netns_testkit::{eventually, isolated};

use crate::cluster::{Cluster, PORT, pod, service};

/// The reports that an observer has received from an agent.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reports {
    apply_count: Arc<Mutex<u32>>,
    last_error: Arc<Mutex<Option<String>>>,
}

impl Reports {
    /// Returns the error of the last attempt to apply the configuration.
    pub(crate) fn last_error(&self) -> Option<String> {
        self.last_error.lock().unwrap().clone()
    }
}

impl Observer for Reports {
    fn on_modes(&mut self, _modes: &Modes) {}

    fn on_applied(&mut self, result: Result<(), &DataPathError>) {
        *self.apply_count.lock().unwrap() += 1;
        *self.last_error.lock().unwrap() = result.err().map(ToString::to_string);
    }
}

pub(crate) fn start_agent(cluster: &Cluster, node: usize) -> (Agent, Reports) {
    let reports = Reports::default();
    let config = cluster.config(node);
    let agent = cluster.laboratory.node(node).namespace.run(|| {
        keep_capabilities(CapabilitySet::NET_ADMIN);
        Agent::start(config, reports.clone()).unwrap()
    });
    (agent, reports)
}

fn start_all_agents(options: &Options) -> (Cluster, Vec<(Agent, Reports)>) {
    let mut cluster = Cluster::new(options, None);
    cluster.services = vec![service(PORT, &pod(&cluster.laboratory, 2, 1))];
    let agents = (1..=options.nodes).map(|node| start_agent(&cluster, node)).collect();
    (cluster, agents)
}

/// Sends requests to node 1. Returns true if the endpoint on node 2 sees the client's addresses.
pub(crate) fn endpoint_sees_client(cluster: &Cluster) -> bool {
    let client_addresses: Vec<_> = cluster.families.iter().map(|family| client_address(*family)).collect();
    let seen_addresses = cluster.families.iter().map(|family| {
        let answer = cluster.ask(&cluster.laboratory.client, Protocol::Tcp, *family, 1);
        answer.map(|answer| answer.client.ip())
    });
    seen_addresses
        .collect::<Result<Vec<_>, _>>()
        .is_ok_and(|seen_addresses| seen_addresses == client_addresses)
}

#[test]
fn agents_find_a_way_and_keep_the_client_address() {
    isolated(|| {
        for options in
            [Options::default(), Options { pod_network: PodNetwork::Overlay, ..Options::default() }]
        {
            let (cluster, agents) = start_all_agents(&options);
            eventually("the endpoint sees the client", || endpoint_sees_client(&cluster).then_some(()));
            for (_, reports) in &agents {
                assert_eq!(reports.last_error(), None);
            }
        }
    });
}

#[test]
fn agents_follow_the_network_and_restart_without_changes() {
    isolated(|| {
        let (cluster, mut agents) = start_all_agents(&Options::default());
        let table_text = |cluster: &Cluster| {
            let list = ["--stateless", "list", "table", "inet", "akrobateo"];
            cluster.laboratory.node(1).namespace.run_program(Command::new("nft").args(list), "")
        };
        eventually("the endpoint sees the client", || endpoint_sees_client(&cluster).then_some(()));
        // Node 1 has two peers in two families.
        eventually("all peers are direct", || {
            (table_text(&cluster).matches("0x6b73000").count() == 4).then_some(())
        });
        // A restart of the agent does not change the table.
        let table_before = table_text(&cluster);
        let (agent, _) = agents.remove(0);
        drop(agent);
        assert_eq!(table_text(&cluster), table_before);
        let (agent, reports) = start_agent(&cluster, 1);
        eventually("the agent has applied its configuration", || {
            (*reports.apply_count.lock().unwrap() > 0).then_some(())
        });
        assert_eq!(table_text(&cluster), table_before);
        agents.push((agent, reports));
        // The frames of node 2 arrive with a gateway's MAC address, so only the tunnel keeps the client's address.
        cluster.laboratory.set_filters(&[Filter::GatewayMac(2)]);
        eventually("the way is the tunnel", || {
            (table_text(&cluster) != table_before && endpoint_sees_client(&cluster)).then_some(())
        });
    });
}

#[test]
fn agent_restores_objects_that_another_program_deletes() {
    isolated(|| {
        let (cluster, _agents) =
            start_all_agents(&Options { pod_network: PodNetwork::Overlay, ..Options::default() });
        eventually("the endpoint sees the client", || endpoint_sees_client(&cluster).then_some(()));
        let namespace = &cluster.laboratory.node(1).namespace;
        let exists = |program: &str, arguments: &str| {
            let output = namespace.run(|| Command::new(program).args(arguments.split(' ')).output().unwrap());
            output.status.success() && !output.stdout.is_empty()
        };
        for (program, deletion, list) in [
            ("nft", "delete table inet akrobateo", "list chain inet akrobateo nat_post"),
            ("nft", "delete table netdev akrobateo", "list chain netdev akrobateo tunnel"),
            (
                "nft",
                "delete element inet akrobateo kept4 { 10.244.2.10 }",
                "get element inet akrobateo kept4 { 10.244.2.10 }",
            ),
            ("ip", "link delete akr0", "link show akr0 up"),
            ("ip", "rule delete priority 96", "rule show priority 96"),
        ] {
            namespace.run_program(Command::new(program).args(deletion.split(' ')), "");
            let start = Instant::now();
            eventually(list, || exists(program, list).then_some(()));
            eprintln!("{deletion}: restored after {:?}", start.elapsed());
            eventually("the endpoint sees the client", || endpoint_sees_client(&cluster).then_some(()));
        }
        // The egress chain of the tunnel exists again, because its device exists again.
        assert!(exists("nft", "list chain netdev akrobateo tunnel"));
    });
}

#[test]
fn reports_of_own_changes_of_the_tunnel_are_discarded_but_not_those_of_others() {
    isolated(|| {
        let mut cluster = Cluster::new(&Options::default(), Some(Way::Tunnel));
        cluster.services = vec![service(PORT, &pod(&cluster.laboratory, 2, 1))];
        let config = cluster.config(1);
        let namespace = &cluster.laboratory.node(1).namespace;
        namespace.run(|| {
            let mut data_path = DataPath::open().unwrap();
            let watch = data_path.open_watch().unwrap();
            assert!(data_path.apply(&config).unwrap().tunnel > 0);
            assert!(data_path.skip_own_tunnel_changes(&watch).unwrap());
            let device = data_path.tunnel_device().unwrap();
            assert!(device.is_some() && !watch.has_changes(device).unwrap());
            namespace.ip("rule delete priority 96");
            assert!(!data_path.skip_own_tunnel_changes(&watch).unwrap());
        });
    });
}

#[test]
fn agent_applies_new_configurations_and_retries_after_an_error() {
    isolated(|| {
        let (mut cluster, agents) = start_all_agents(&Options::default());
        let (agent, reports) = &agents[0];
        let ask = |cluster: &Cluster| cluster.ask(&cluster.laboratory.client, Protocol::Udp, Family::V4, 1);
        cluster.services = vec![service(PORT, &pod(&cluster.laboratory, 1, 2))];
        agent.set_config(cluster.config(1));
        eventually("the other pod answers", || ask(&cluster).ok().filter(|answer| answer.backend == "n1p2"));
        let mut config = cluster.config(1);
        config.node.uplink = "missing".to_owned();
        agent.set_config(config);
        let error = eventually("the error is reported", || reports.last_error());
        assert!(error.contains("no network interface missing"), "{error}");
        assert_eq!(ask(&cluster).unwrap().backend, "n1p2");
        agent.set_config(cluster.config(1));
        eventually("the error is over", || reports.last_error().is_none().then_some(()));
    });
}

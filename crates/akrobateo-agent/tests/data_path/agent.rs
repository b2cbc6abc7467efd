//! Tests of running agents: they find the paths to their peers, and restore objects that other programs delete.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use akrobateo_agent::agent::{Agent, Modes, Observer};
use akrobateo_agent::config::{Endpoint, Service};
use akrobateo_agent::data_path::{DataPath, DataPathError};
use akrobateo_agent::probe::PeerPath;
use akrobateo_core::{Family, Protocol};
use netns_testkit::laboratory::addresses::client_address;
use netns_testkit::laboratory::{Filter, Flow, Options, PodNetwork, Uplink};
use netns_testkit::privileges::{CapabilitySet, keep_capabilities};
use netns_testkit::{eventually, isolated};

use crate::cluster::{Cluster, ClusterMode, SERVICE_PORT, pod_endpoints, service};

/// The time after which a datagram counts as lost.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(300);

/// The reports that an observer has received from an agent.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reports {
    pub(crate) apply_count: Arc<Mutex<u32>>,
    last_error: Arc<Mutex<Option<String>>>,
    pub(crate) modes: Arc<Mutex<Modes>>,
}

impl Reports {
    /// Returns the error of the last attempt to apply the configuration.
    pub(crate) fn last_error(&self) -> Option<String> {
        self.last_error.lock().unwrap().clone()
    }
}

impl Observer for Reports {
    fn on_modes(&mut self, modes: &Modes) {
        self.modes.lock().unwrap().clone_from(modes);
    }

    fn on_applied(&mut self, _: u64, result: Result<(), &DataPathError>, _: Duration) {
        *self.apply_count.lock().unwrap() += 1;
        *self.last_error.lock().unwrap() = result.err().map(ToString::to_string);
    }
}

pub(crate) fn start_agent(cluster: &Cluster, node: usize) -> (Agent, Reports) {
    let reports = Reports::default();
    let config = cluster.config(node);
    let agent = cluster.laboratory.node(node).namespace.run(|| {
        keep_capabilities(CapabilitySet::NET_ADMIN);
        Agent::start(0, config, reports.clone()).unwrap()
    });
    (agent, reports)
}

/// Prepares the nodes, and then starts an agent on each node.
pub(crate) fn start_all_agents(
    options: &Options,
    has_egress_hook: bool,
    prepare: impl FnOnce(&Cluster),
) -> (Cluster, Vec<(Agent, Reports)>) {
    let mut cluster = Cluster::new(options, ClusterMode { path: None, has_egress_hook });
    prepare(&cluster);
    cluster.services = vec![service(SERVICE_PORT, &pod_endpoints(&cluster.laboratory, 2, 1))];
    let agents = (1..=options.node_count).map(|node| start_agent(&cluster, node)).collect();
    (cluster, agents)
}

/// Sends requests to node 1. Returns true if the endpoint on node 2 sees the client's addresses.
pub(crate) fn endpoint_sees_client_address(cluster: &Cluster) -> bool {
    let client_addresses: Vec<_> = cluster.families.iter().map(|family| client_address(*family)).collect();
    let seen_addresses = cluster.families.iter().map(|family| {
        let answer = cluster.request(&cluster.laboratory.client, Protocol::Tcp, *family, 1);
        answer.map(|answer| answer.client.ip())
    });
    seen_addresses
        .collect::<Result<Vec<_>, _>>()
        .is_ok_and(|seen_addresses| seen_addresses == client_addresses)
}

#[test]
fn agents_find_a_path_and_keep_the_client_address() {
    isolated(|| {
        for (pod_network, has_egress_hook) in [
            (PodNetwork::HostRoutes, true),
            (PodNetwork::HostRoutes, false),
            (PodNetwork::Overlay, true),
            (PodNetwork::Overlay, false),
        ] {
            let options = Options { pod_network, ..Options::default() };
            let (cluster, agents) = start_all_agents(&options, has_egress_hook, |_| ());
            eventually("the endpoint sees the client", || {
                endpoint_sees_client_address(&cluster).then_some(())
            });
            for (_, reports) in &agents {
                assert_eq!(reports.last_error(), None);
            }
        }
    });
}

#[test]
fn agents_change_paths_after_network_changes_but_not_after_a_restart() {
    isolated(|| {
        for has_egress_hook in [true, false] {
            check_restart_and_filter(has_egress_hook);
        }
    });
}

/// Restarts an agent, and then makes the direct path unusable.
fn check_restart_and_filter(has_egress_hook: bool) {
    let (cluster, mut agents) = start_all_agents(&Options::default(), has_egress_hook, |_| ());
    let table_text = |cluster: &Cluster| {
        let list = ["--stateless", "list", "table", "inet", "akrobateo"];
        cluster.laboratory.node(1).namespace.run_program(Command::new("nft").args(list), "")
    };
    eventually("the endpoint sees the client", || endpoint_sees_client_address(&cluster).then_some(()));
    // Node 1 has two peers in two families.
    eventually("all peers are direct", || {
        (table_text(&cluster).matches("0x6b80000").count() == 4).then_some(())
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
    // The frames of node 2 arrive with a gateway's MAC address. The direct path needs the MAC address of node 2, so
    // only the tunnel keeps the client's address.
    cluster.laboratory.set_filters(&[Filter::GatewayMac(2)]);
    eventually("the path is the tunnel", || {
        (table_text(&cluster) != table_before && endpoint_sees_client_address(&cluster)).then_some(())
    });
}

/// A command that deletes an object, and a command that lists the object. If the object exists, the second command
/// succeeds and prints text.
pub(crate) type Deletion = (&'static str, &'static str);

const DELETIONS: [Deletion; 3] = [
    ("nft delete table inet akrobateo", "nft list chain inet akrobateo nat_post"),
    (
        "nft delete element inet akrobateo kept4 { 10.244.2.10 }",
        "nft get element inet akrobateo kept4 { 10.244.2.10 }",
    ),
    ("ip rule delete priority 96", "ip rule show priority 96"),
];
const TUNNEL_DELETIONS: [Deletion; 1] = [("ip link delete akr0", "ip link show akr0 up")];
const EGRESS_HOOK_DELETIONS: [Deletion; 1] =
    [("nft delete table netdev akrobateo", "nft list chain netdev akrobateo tunnel")];
const PEER_RULE_DELETIONS: [Deletion; 3] = [
    ("ip rule delete priority 98", "ip rule show priority 98"),
    ("ip rule delete fwmark 0x6b400002/0xffc03fff", "ip rule show fwmark 0x6b400002/0xffc03fff"),
    ("ip -6 route flush table 0x6b720002", "ip -6 route show table 0x6b720002"),
];
const DIRECT_ROUTE_DELETIONS: [Deletion; 2] = [
    ("ip rule delete fwmark 0x6b800001/0xffc03fff", "ip rule show fwmark 0x6b800001/0xffc03fff"),
    ("ip route flush table 0x6b730001", "ip route show table 0x6b730001"),
];

/// Deletes objects on a node one after another. The agent must restore each object.
pub(crate) fn check_deletions(cluster: &Cluster, node: usize, deletions: &[&[Deletion]]) {
    let namespace = &cluster.laboratory.node(node).namespace;
    let command = |command: &str| {
        let mut words = command.split(' ');
        let mut program = Command::new(words.next().unwrap());
        program.args(words);
        program
    };
    let object_exists = |list_command: &str| {
        let output = namespace.run(|| command(list_command).output().unwrap());
        output.status.success() && !output.stdout.is_empty()
    };
    for (deletion, list_command) in deletions.iter().copied().flatten() {
        namespace.run_program(&mut command(deletion), "");
        let start = Instant::now();
        eventually(list_command, || object_exists(list_command).then_some(()));
        eprintln!("{deletion}: restored after {:?}", start.elapsed());
        eventually("the endpoint sees the client", || endpoint_sees_client_address(cluster).then_some(()));
    }
}

#[test]
fn agent_restores_objects_that_another_program_deletes() {
    isolated(|| {
        let options = Options { pod_network: PodNetwork::Overlay, ..Options::default() };
        for (has_egress_hook, mode_deletions) in
            [(true, &EGRESS_HOOK_DELETIONS[..]), (false, &PEER_RULE_DELETIONS)]
        {
            let (cluster, _agents) = start_all_agents(&options, has_egress_hook, |_| ());
            eventually("the endpoint sees the client", || {
                endpoint_sees_client_address(&cluster).then_some(())
            });
            // The last group checks that the agent has also restored the objects that depend on the tunnel's device.
            check_deletions(&cluster, 1, &[mode_deletions, &DELETIONS, &TUNNEL_DELETIONS, mode_deletions]);
        }
    });
}

#[test]
fn agent_restores_its_objects_after_the_uplink_was_down_or_replaced() {
    isolated(|| {
        for has_egress_hook in [true, false] {
            let options =
                Options { uplink: Uplink::Bridge, filters_bridged_packets: false, ..Options::default() };
            let (cluster, _agents) = start_all_agents(&options, has_egress_hook, |_| ());
            eventually("the endpoint sees the client", || {
                endpoint_sees_client_address(&cluster).then_some(())
            });
            if !has_egress_hook {
                check_deletions(&cluster, 2, &[&DIRECT_ROUTE_DELETIONS]);
            }
            let node = cluster.laboratory.node(2);
            node.namespace.ip("link set uplink down\nlink set uplink up");
            node.restore_uplink(&options);
            eventually("the endpoint sees the client", || {
                endpoint_sees_client_address(&cluster).then_some(())
            });
            node.namespace.ip(&format!(
                "link delete uplink\nlink add uplink address {} type bridge\n\
                 link set eth0 master uplink\nlink set uplink up",
                node.mac
            ));
            node.restore_uplink(&options);
            eventually("the endpoint sees the client", || {
                endpoint_sees_client_address(&cluster).then_some(())
            });
        }
    });
}

#[test]
fn only_notifications_of_own_tunnel_changes_are_discarded() {
    isolated(|| {
        let mut cluster = Cluster::new(&Options::default(), Some(PeerPath::Tunnel));
        cluster.services = vec![service(SERVICE_PORT, &pod_endpoints(&cluster.laboratory, 2, 1))];
        let config = cluster.config(1);
        let namespace = &cluster.laboratory.node(1).namespace;
        namespace.run(|| {
            let mut data_path = DataPath::open().unwrap();
            let watch = data_path.open_watch().unwrap();
            assert!(data_path.apply(&config).unwrap().tunnel_changes > 0);
            assert!(data_path.skip_own_tunnel_changes(&watch, &config.node.uplink).unwrap());
            let device_index = data_path.tunnel_device_index().unwrap();
            assert!(device_index.is_some());
            assert!(!watch.has_changes(device_index, &config.node.uplink).unwrap());
            namespace.ip("rule delete priority 96");
            assert!(!data_path.skip_own_tunnel_changes(&watch, &config.node.uplink).unwrap());
        });
    });
}

#[test]
fn agent_applies_new_configurations_and_retries_after_an_error() {
    isolated(|| {
        let (mut cluster, agents) = start_all_agents(&Options::default(), true, |_| ());
        let (agent, reports) = &agents[0];
        let request =
            |cluster: &Cluster| cluster.request(&cluster.laboratory.client, Protocol::Udp, Family::V4, 1);
        cluster.services = vec![service(SERVICE_PORT, &pod_endpoints(&cluster.laboratory, 1, 2))];
        agent.set_config(1, cluster.config(1));
        eventually("the other pod answers", || {
            request(&cluster).ok().filter(|answer| answer.backend == "n1p2")
        });
        let mut config = cluster.config(1);
        config.node.uplink = "missing".to_owned();
        agent.set_config(1, config);
        let error = eventually("the error is reported", || reports.last_error());
        assert!(error.contains("no network interface missing"), "{error}");
        assert_eq!(request(&cluster).unwrap().backend, "n1p2");
        agent.set_config(1, cluster.config(1));
        eventually("the error is over", || reports.last_error().is_none().then_some(()));
    });
}

#[test]
fn agents_look_for_paths_unless_all_services_masquerade() {
    isolated(|| {
        let mut cluster =
            Cluster::new(&Options::default(), ClusterMode { path: None, has_egress_hook: true });
        let agents: Vec<_> =
            (1..=cluster.laboratory.nodes.len()).map(|node| start_agent(&cluster, node)).collect();
        let has_modes = |reports: &Reports| !reports.modes.lock().unwrap().is_empty();
        let set_services = |cluster: &mut Cluster, services| {
            cluster.services = services;
            for (node, (agent, _)) in (1..).zip(&agents) {
                agent.set_config(1, cluster.config(node));
            }
        };
        eventually("the agents have applied their configurations", || {
            agents.iter().all(|(_, reports)| *reports.apply_count.lock().unwrap() > 0).then_some(())
        });
        let endpoint = pod_endpoints(&cluster.laboratory, 2, 1);
        let masquerading_service =
            Service { keeps_client_address: false, ..service(SERVICE_PORT, &endpoint) };
        set_services(&mut cluster, vec![masquerading_service.clone()]);
        eventually("no agent reports a path", || {
            (!agents.iter().any(|(_, reports)| has_modes(reports))).then_some(())
        });
        // The paths must be known before the first Service exists.
        set_services(&mut cluster, Vec::new());
        eventually("all agents report paths", || {
            agents.iter().all(|(_, reports)| has_modes(reports)).then_some(())
        });
        set_services(&mut cluster, vec![service(SERVICE_PORT, &endpoint)]);
        eventually("the endpoint sees the client", || endpoint_sees_client_address(&cluster).then_some(()));
        // The connections of the Service may still have the addresses of clients.
        set_services(&mut cluster, vec![masquerading_service]);
        eventually("the endpoint does not see the client", || {
            (!endpoint_sees_client_address(&cluster)).then_some(())
        });
        assert!(agents.iter().all(|(_, reports)| has_modes(reports)));
    });
}

#[test]
fn agent_moves_udp_flows_and_affinities_of_a_lost_endpoint() {
    isolated(|| {
        let mut cluster = Cluster::new(&Options::default(), None);
        // The agent compares only a part of the tables, because the second Service does not change.
        let services = |endpoints: &[Endpoint]| {
            let affinity_seconds = NonZeroU32::new(10_800);
            vec![
                Service { affinity_seconds, ..service(SERVICE_PORT, endpoints) },
                Service { affinity_seconds, ..service(SERVICE_PORT + 1, endpoints) },
            ]
        };
        let (first, second) =
            (pod_endpoints(&cluster.laboratory, 1, 1), pod_endpoints(&cluster.laboratory, 1, 2));
        cluster.services = services(&first);
        let (agent, _) = start_agent(&cluster, 1);
        for family in Family::ALL {
            let to = SocketAddr::new(cluster.laboratory.node(1).address(family), SERVICE_PORT);
            let mut flow = cluster
                .laboratory
                .client
                .run(|| Flow::open(Protocol::Udp, None, to, ANSWER_TIMEOUT).unwrap());
            let mut both_answers_come_from = |cluster: &Cluster, name: &str| {
                let tcp_answer = cluster.request(&cluster.laboratory.client, Protocol::Tcp, family, 1);
                let answers = [tcp_answer.ok(), flow.ask(1).ok()];
                answers
                    .iter()
                    .all(|answer| answer.as_ref().is_some_and(|it| it.backend == name))
                    .then_some(())
            };
            eventually("the first endpoint answers", || both_answers_come_from(&cluster, "n1p1"));
            cluster.services[0] = services(&second).remove(0);
            agent.set_config(1, cluster.config(1));
            eventually("the second endpoint answers", || both_answers_come_from(&cluster, "n1p2"));
            cluster.services[0] = services(&first).remove(0);
            agent.set_config(1, cluster.config(1));
        }
    });
}

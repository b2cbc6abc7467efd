//! Configurations change without failed flows and without lost packets.

use std::num::NonZeroU32;
use std::time::Duration;

use akrobateo_agent::config::{NodeConfig, Service};
use akrobateo_agent::data_path::DataPath;
use akrobateo_agent::probe::PeerPath;
use akrobateo_agent::table::NodeTables;
use akrobateo_core::{Family, Protocol};
use netns_testkit::isolated;
use netns_testkit::laboratory::Options;

use crate::cluster::{Cluster, SERVICE_PORT, all_pod_endpoints, service};
use crate::load::{self, Load, flow_count};
use crate::random::{Random, random_seed};
use crate::random_config::change_layout;

/// The kinds of changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ChangeKind {
    /// No change. This phase shows how many segments are lost without changes.
    Nothing,
    /// The endpoints change, but not their number.
    Elements,
    /// The number of endpoints, the session affinity, and the source ranges change.
    Chains,
    /// The paths to peers change.
    PeerPaths,
    /// The definitions of chains and sets change, as after an upgrade of the agent.
    Layouts,
    /// All changes of the other kinds.
    All,
}

/// Nodes whose configurations change.
struct ChangingNodes<'a> {
    cluster: &'a Cluster,
    data_paths: Vec<DataPath>,
    configs: Vec<NodeConfig>,
    has_other_layout: Vec<bool>,
    random: Random,
}

impl<'a> ChangingNodes<'a> {
    fn new(cluster: &'a Cluster, seed: u64) -> Self {
        let nodes = &cluster.laboratory.nodes;
        let mut data_paths: Vec<_> =
            nodes.iter().map(|node| node.namespace.run(|| DataPath::open().unwrap())).collect();
        let configs: Vec<_> = nodes.iter().map(|node| cluster.config(node.number)).collect();
        for (data_path, config) in data_paths.iter_mut().zip(&configs) {
            data_path.apply(config).unwrap();
        }
        let has_other_layout = vec![false; configs.len()];
        Self { cluster, data_paths, configs, has_other_layout, random: Random::new(seed) }
    }

    /// Changes the configuration of one node.
    fn change(&mut self, kind: ChangeKind) {
        let node = self.random.number_below(self.configs.len());
        let includes_kind = |other_kind| kind == other_kind || kind == ChangeKind::All;
        if includes_kind(ChangeKind::Elements) || includes_kind(ChangeKind::Chains) {
            let count = if includes_kind(ChangeKind::Chains) { 1 + self.random.number_below(6) } else { 2 };
            self.choose_endpoints(node, count);
        }
        if includes_kind(ChangeKind::Chains) {
            let service = &mut self.configs[node].services[0];
            service.affinity_seconds = *self.random.choose(&[None, NonZeroU32::new(60), NonZeroU32::new(61)]);
            let ranges = [
                None,
                Some(["0.0.0.0/0", "::/0"]),
                Some(["10.99.0.0/24", "fd99::/64"]),
                Some(["10.0.0.0/8", "fd00::/8"]),
            ];
            let ranges = *self.random.choose(&ranges);
            service.source_ranges = ranges.map(|it| it.map(|range| range.parse().unwrap()).into());
        }
        if includes_kind(ChangeKind::PeerPaths) {
            for peer in &mut self.configs[node].peers {
                let mut path =
                    || *self.random.choose(&[None, Some(PeerPath::Direct), Some(PeerPath::Tunnel)]);
                let paths = Family::ALL.into_iter().filter_map(|family| Some((family, path()?)));
                peer.set_paths(paths.collect());
            }
        }
        if kind != ChangeKind::Nothing {
            let config = &self.configs[node];
            let mut tables = NodeTables::new(config);
            if kind == ChangeKind::Layouts || (kind == ChangeKind::All && self.random.random_bool(20)) {
                self.has_other_layout[node] = !self.has_other_layout[node];
            }
            if self.has_other_layout[node] {
                change_layout(&mut tables);
            }
            self.data_paths[node].apply_tables(config, |_| tables.clone()).unwrap();
        }
    }

    /// Selects random endpoints for TCP. The remaining endpoints terminate, but still serve their connections. UDP
    /// keeps all its endpoints, because the agent would delete the UDP flows to other endpoints.
    fn choose_endpoints(&mut self, node: usize, count: usize) {
        let mut pods = all_pod_endpoints(&self.cluster.laboratory);
        let mut selected_pods: Vec<_> = (0..pods.len() / 2).collect();
        while selected_pods.len() > count {
            selected_pods.remove(self.random.number_below(selected_pods.len()));
        }
        for (index, pod) in pods.iter_mut().enumerate() {
            pod.is_ready = selected_pods.contains(&(index / 2));
            pod.is_serving_while_terminating = !pod.is_ready;
        }
        let ports = &mut self.configs[node].services[0].ports;
        ports.iter_mut().filter(|port| port.protocol == Protocol::Tcp).for_each(|port| {
            port.endpoints.clone_from(&pods);
        });
    }
}

/// Returns the Service of the test, and another Service.
fn services(cluster: &Cluster) -> Vec<Service> {
    let pods = all_pod_endpoints(&cluster.laboratory);
    vec![service(SERVICE_PORT, &pods), service(SERVICE_PORT + 1, &pods[..2])]
}

#[test]
fn packets_are_not_lost_when_elements_chains_paths_or_layouts_change() {
    isolated(|| {
        let mut cluster = Cluster::new(&Options::default(), Some(PeerPath::Direct));
        cluster.services = services(&cluster);
        load::prepare_for_load(&cluster.laboratory);
        let load = Load { laboratory: &cluster.laboratory, nodes: &[1, 2, 3] };
        let mut nodes = ChangingNodes::new(&cluster, random_seed());
        let kinds = [
            ChangeKind::Nothing,
            ChangeKind::Elements,
            ChangeKind::Chains,
            ChangeKind::PeerPaths,
            ChangeKind::Layouts,
            ChangeKind::All,
        ];
        let outcomes = kinds.map(|kind| {
            let mut changes = 0;
            let outcome = load.run_phase(flow_count(20_000) / kinds.len(), || {
                if kind == ChangeKind::Nothing {
                    std::thread::sleep(Duration::from_millis(1));
                }
                nodes.change(kind);
                changes += 1;
            });
            eprintln!("{kind:?}: {changes} changes, {outcome}");
            outcome
        });
        let allowed_retransmissions = outcomes[0].retransmissions();
        for (kind, outcome) in kinds.iter().zip(&outcomes) {
            assert_eq!(outcome.failures, Vec::<String>::new(), "{kind:?}");
            assert!(outcome.retransmissions() <= allowed_retransmissions, "{kind:?}: {outcome}");
        }
    });
}

#[test]
fn affinity_of_a_client_survives_another_layout_of_the_tables() {
    isolated(|| {
        let cluster = Cluster::start(&Options::default(), Some(PeerPath::Direct), |laboratory| {
            let service = service(SERVICE_PORT, &all_pod_endpoints(laboratory));
            vec![Service { affinity_seconds: NonZeroU32::new(10_800), ..service }]
        });
        let backends = || -> Vec<_> {
            let answers = (0..6).flat_map(|_| Family::ALL).map(|family| {
                cluster.request(&cluster.laboratory.client, Protocol::Tcp, family, 1).unwrap().backend
            });
            answers.collect()
        };
        let first_backends = backends();
        for _ in 0..4 {
            let config = cluster.config(1);
            let mut tables = NodeTables::new(&config);
            change_layout(&mut tables);
            cluster.with_data_path(1, |data_path| {
                data_path.apply_tables(&config, |_| tables.clone()).unwrap();
            });
            assert_eq!(backends(), first_backends);
            cluster.apply(1, &config);
            assert_eq!(backends(), first_backends);
        }
    });
}

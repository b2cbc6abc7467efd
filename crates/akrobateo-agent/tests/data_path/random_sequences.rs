//! Random sequences of configurations, restarts and changes by other programs lead to the state of a fresh start.

use akrobateo_agent::config::NodeConfig;
use akrobateo_agent::data_path::DataPath;
use akrobateo_agent::routing;
use akrobateo_agent::table::{INTERIM_TABLE_NAME, NodeTables, TABLE_NAME, leads_to_other_sets, table_ids};
use akrobateo_agent::tunnel;
use links::{Client, Owner};
use netfilter::nft::client::Nftables;
use netfilter::nft::{Transaction, diff};
use netns_testkit::{Namespace, isolated};

use crate::kernel_state::{KernelState, disturb};
use crate::random::{Random, for_each_seed};
use crate::random_config::{INTERFACES, change_config, change_layout, empty_config};

/// The number of sequences. Several threads run the sequences, because the kernel waits most of the time.
const SEQUENCE_COUNT: u64 = 500;
const THREAD_COUNT: u64 = 5;
const MAX_STEPS: usize = 7;

fn create_node_netns() -> Namespace {
    let namespace = Namespace::new();
    for interface in INTERFACES {
        namespace.ip(&format!(
            "link add {interface} type veth peer name {interface}peer\nlink set {interface} up"
        ));
    }
    namespace
}

/// Executes only some steps of [`DataPath::apply`], like a process that is killed during the change.
fn apply_partly(config: &NodeConfig, random: &mut Random) {
    let tables = NodeTables::new(config);
    if config.keeps_client_addresses() {
        let mut links = Client::open(tunnel::owner()).unwrap();
        let uplink = Client::open(Owner { device: config.node.uplink.clone(), ..tunnel::owner() });
        let uplink = uplink.unwrap().device_index().unwrap().unwrap();
        let objects = routing::network_objects(config, uplink);
        if random.random_bool(40) {
            let changes = links::diff(&links.observe().unwrap(), &objects);
            links.apply(&changes[..random.number_below(changes.len() + 1)]).unwrap();
            return;
        }
        links.reconcile(&objects).unwrap();
    }
    let nftables = Nftables::open().unwrap();
    if random.random_bool(40) {
        replace_partly(&nftables, tables, random);
        return;
    }
    let installed = nftables.read(&tables.inet.id).unwrap().1;
    let stages = diff(installed.as_ref(), &tables.inet).into_stages(leads_to_other_sets);
    let stages = [stages.additions, stages.changes, stages.deletions];
    for stage in &stages[..=random.number_below(stages.len())] {
        nftables.execute(stage).unwrap();
    }
}

/// Executes only some steps of a replacement of the tables.
fn replace_partly(nftables: &Nftables, tables: NodeTables, random: &mut Random) {
    let interim = tables.with_name(INTERIM_TABLE_NAME);
    // Possible causes of an error are existing tables, and a chain whose interface another program has deleted.
    let _ = nftables.execute(&Transaction::create(&interim.inet));
    for table in interim.netdev.iter().filter(|_| random.random_bool(50)) {
        let _ = nftables.execute(&Transaction::create(table));
    }
    for id in table_ids(TABLE_NAME).iter().filter(|_| random.random_bool(50)) {
        let _ = nftables.execute(&Transaction::delete(id));
    }
}

/// Runs a sequence, and returns its last configuration, which is in force at the end.
fn run_sequence(seed: u64) -> NodeConfig {
    let mut random = Random::new(seed);
    let mut config = empty_config();
    let mut data_path = DataPath::open().unwrap();
    data_path.apply(&config).unwrap();
    for _ in 0..=random.number_below(MAX_STEPS) {
        for _ in 0..=random.number_below(6) {
            change_config(&mut config, &mut random);
        }
        match random.number_below(10) {
            0..5 => {}
            5 => data_path = DataPath::open().unwrap(),
            6..8 => {
                apply_partly(&config, &mut random);
                data_path = DataPath::open().unwrap();
                if random.random_bool(50) {
                    change_config(&mut config, &mut random);
                }
            }
            _ => {
                for _ in 0..=random.number_below(3) {
                    disturb(&mut random);
                }
                data_path.forget_installed_state();
            }
        }
        if random.random_bool(5) {
            let mut tables = NodeTables::new(&config);
            change_layout(&mut tables);
            data_path.apply_tables(&config, |_| tables.clone()).unwrap_or_else(|error| panic!("{error}"));
        }
        data_path.apply(&config).unwrap_or_else(|error| panic!("{error}"));
    }
    config
}

#[test]
fn random_sequences_end_in_the_state_of_a_fresh_start() {
    isolated(|| {
        std::thread::scope(|scope| {
            for _ in 0..THREAD_COUNT {
                scope.spawn(|| {
                    let (netns, fresh_netns) = (create_node_netns(), create_node_netns());
                    for_each_seed(SEQUENCE_COUNT / THREAD_COUNT, |seed| {
                        check_sequence(seed, &netns, &fresh_netns);
                    });
                });
            }
        });
    });
}

fn check_sequence(seed: u64, netns: &Namespace, fresh_netns: &Namespace) {
    let (config, state) = netns.run(|| {
        let config = run_sequence(seed);
        let state = KernelState::read();
        // The next change finds nothing to do.
        let mut data_path = DataPath::open().unwrap();
        let changes = data_path.apply(&config).unwrap();
        assert_eq!((changes.nftables_steps, changes.tunnel_changes), (0, 0), "{config:?}");
        data_path.cleanup().unwrap();
        assert_eq!(KernelState::read(), KernelState::default(), "{config:?}");
        (config, state)
    });
    let fresh_state = fresh_netns.run(|| {
        let mut data_path = DataPath::open().unwrap();
        data_path.apply(&config).unwrap();
        let state = KernelState::read();
        data_path.cleanup().unwrap();
        state
    });
    assert!(state == fresh_state, "{config:?}\nstate: {state:?}\nfresh state: {fresh_state:?}");
}

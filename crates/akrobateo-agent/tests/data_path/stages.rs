//! A packet finds its endpoint even if the tables change between two lookups of the packet. The test runs in memory,
//! with a model of the kernel.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use akrobateo_agent::config::NodeConfig;
use akrobateo_agent::table::{NodeTables, leads_to_other_sets};
use netfilter::nft::model::{Chain, Element, ElementValue, Set, Table, Value, Verdict};
use netfilter::nft::{Action, InstalledTable, Stages, Transaction, diff};

use crate::random::{Random, for_each_seed};
use crate::random_config::{change_config, empty_config};

const SEQUENCE_COUNT: u64 = 400;
/// A client in some of the source ranges.
const CLIENT_ADDRESS: &str = "192.0.2.1";

/// Executes a transaction as the kernel does. Panics at an impossible step.
fn execute(table: &Table, transaction: &Transaction<'_>) -> Table {
    let mut table = table.clone();
    for step in &transaction.steps {
        execute_step(&mut table, &step.action);
    }
    assert_eq!(table.check(), Ok(()));
    table
}

fn execute_step(table: &mut Table, action: &Action<'_>) {
    match action {
        Action::CreateSet(set) => {
            assert!(table.set(&set.name).is_none(), "{}", set.name);
            table.sets.push(Set { elements: Vec::new(), ..(*set).clone() });
        }
        Action::DeleteSet(name) => table.sets.retain(|set| set.name != *name),
        Action::CreateChain(chain) => {
            assert!(table.chain(&chain.name).is_none(), "{}", chain.name);
            table.chains.push(Chain { rules: Vec::new(), ..(*chain).clone() });
        }
        Action::DeleteChain(name) => {
            assert!(table.chain(name).unwrap().rules.is_empty());
            table.chains.retain(|chain| chain.name != *name);
        }
        Action::FlushChain(name) => chain(table, name).rules.clear(),
        Action::AddRule(name, rule) => chain(table, name).rules.push((*rule).clone()),
        Action::AddElements(set, elements) => {
            let set = table.sets.iter_mut().find(|it| it.name == set.name).unwrap();
            for element in elements {
                assert!(!set.elements.iter().any(|it| overlaps(it, element)), "{}: {element:?}", set.name);
                set.elements.push((*element).clone());
            }
            set.elements.sort();
        }
        Action::DeleteElements(set, elements) => {
            let set = table.sets.iter_mut().find(|it| it.name == set.name).unwrap();
            for element in elements {
                let index = set.elements.iter().position(|it| it.equals_ignoring_state(element));
                set.elements.remove(index.unwrap());
            }
        }
        action => panic!("{action:?}"),
    }
}

fn chain<'a>(table: &'a mut Table, name: &str) -> &'a mut Chain {
    table.chains.iter_mut().find(|chain| chain.name == name).unwrap()
}

fn overlaps(element: &Element, other: &Element) -> bool {
    let last_key = |element: &Element| element.last_key.as_deref().copied().unwrap_or(element.key);
    element.key <= last_key(other) && other.key <= last_key(element)
}

/// Returns the states of a table before, between and after the stages of a change.
fn states_during_change(old_config: &Table, new_config: &Table) -> Vec<Table> {
    let installed = InstalledTable::from(old_config.clone());
    let transaction = diff(Some(&installed), new_config);
    assert!(!transaction.recreates_objects());
    let Stages { additions, changes, deletions } = transaction.into_stages(leads_to_other_sets);
    let mut states = vec![old_config.clone()];
    for transaction in [additions, changes, deletions] {
        states.push(execute(&states[states.len() - 1], &transaction));
    }
    assert!(
        states[states.len() - 1].equals_ignoring_state(new_config),
        "{:?}\n{new_config:?}",
        states.last()
    );
    states
}

/// Returns true if each packet to a frontend finds an endpoint. The packet passes the rules of the table `rules_state`.
/// Each lookup of the packet in a set uses the next table in `lookups`.
fn finds_endpoint(rules_state: &Table, lookups: [&Table; 4], suffix: &str, frontend: &Value) -> bool {
    let find_target_chain =
        |table: &Table, set: &str, key: &Value| match table.set(set)?.get(key)?.value.clone()? {
            ElementValue::Verdict(Verdict::Goto(chain)) => Some(chain),
            _ => None,
        };
    let port = Value::from_slice(&frontend.bytes()[frontend.bytes().len() - 8..]).unwrap();
    let Some(mut chain) = find_target_chain(lookups[0], &format!("services{suffix}"), frontend) else {
        return false;
    };
    if chain == "restrict" {
        let client: IpAddr = CLIENT_ADDRESS.parse().unwrap();
        let IpAddr::V4(client) = client else { return false };
        let key = Value::from_slice(&[port.bytes(), &client.octets()].concat()).unwrap();
        let allowed_clients = lookups[1].set(&format!("allowed{suffix}")).unwrap();
        let key = Element::new(key);
        if suffix == "6" || !allowed_clients.elements.iter().any(|element| overlaps(element, &key)) {
            return false;
        }
        let Some(next) = find_target_chain(lookups[2], &format!("restricted{suffix}"), &port) else {
            return false;
        };
        chain = next;
    }
    // If a chain is added after the packet has entered the chains, the chain is empty for the packet.
    if rules_state.chain(&chain).is_none_or(|chain| chain.rules.is_empty()) {
        return false;
    }
    let count: String =
        chain.chars().skip_while(|it| !it.is_ascii_digit()).take_while(char::is_ascii_digit).collect();
    let endpoints = lookups[3].set(&format!("endpoints{suffix}")).unwrap();
    (0..count.parse::<u32>().unwrap_or(0).max(1)).all(|slot| {
        let key = Value::from_slice(&[port.bytes(), &slot.to_ne_bytes()].concat()).unwrap();
        endpoints.get(&key).is_some()
    })
}

fn keys(table: &Table, set: &str) -> BTreeSet<Value> {
    table.set(set).into_iter().flat_map(|set| &set.elements).map(|element| element.key).collect()
}

/// Checks that each new element of the set `second` appears only after the elements of the set `first` that the new
/// element needs.
fn check_order(states: &[Table], first: &str, second: &str, is_needed: impl Fn(&Value, &Value) -> bool) {
    let (old_keys, final_keys) = (keys(&states[0], second), keys(&states[states.len() - 1], first));
    for pair in states.windows(2) {
        let present_keys = keys(&pair[0], first);
        for new_key in keys(&pair[1], second).difference(&old_keys) {
            let missing_key =
                final_keys.iter().find(|key| is_needed(key, new_key) && !present_keys.contains(key));
            assert_eq!(missing_key, None, "{first} lacks an element for {new_key:?} of {second}");
        }
    }
}

/// Checks that packets find their endpoints during a change. Returns the number of checks.
fn check_change(old_config: &NodeConfig, new_config: &NodeConfig) -> usize {
    let tables = [old_config, new_config].map(|config| NodeTables::new(config).inet);
    let states = states_during_change(&tables[0], &tables[1]);
    let mut check_count = 0;
    for suffix in ["4", "6"] {
        let [kept, tunnel_marks, nodes] =
            ["kept", "tunnel_marks", "nodes"].map(|set| format!("{set}{suffix}"));
        check_order(&states, &tunnel_marks, &kept, |endpoint, kept| endpoint == kept);
        check_order(&states, &nodes, "peer_zones", |_, _| true);
        let frontends = tables[0].set(&format!("services{suffix}")).unwrap().elements.iter().map(|it| it.key);
        for frontend in frontends {
            let table_finds_endpoint = |table| finds_endpoint(table, [table; 4], suffix, &frontend);
            if !tables.iter().all(table_finds_endpoint) {
                continue;
            }
            for pair in states.windows(2) {
                // The change happens before one of the lookups.
                for changed_at in 0..=4 {
                    let lookups = [0, 1, 2, 3].map(|lookup| &pair[usize::from(lookup >= changed_at)]);
                    assert!(
                        finds_endpoint(&pair[0], lookups, suffix, &frontend),
                        "{frontend:?}, change before lookup {changed_at}: {old_config:?}\n{new_config:?}"
                    );
                    check_count += 1;
                }
            }
        }
    }
    check_count
}

#[test]
fn packet_finds_its_endpoint_during_a_change_of_the_tables() {
    // The number of changes without a check (`false`), and with at least one check (`true`).
    let mut change_counts = BTreeMap::from([(false, 0), (true, 0)]);
    for_each_seed(SEQUENCE_COUNT, |seed| {
        let mut random = Random::new(seed);
        let mut old_config = empty_config();
        for _ in 0..10 {
            let mut new_config = old_config.clone();
            (0..=random.number_below(10)).for_each(|_| change_config(&mut new_config, &mut random));
            let has_checks = check_change(&old_config, &new_config) > 0;
            *change_counts.entry(has_checks).or_default() += 1;
            old_config = new_config;
        }
    });
    // At least a fifth of the changes must have a Service with endpoints before and after the change.
    assert!(change_counts[&true] > change_counts[&false] / 4, "{change_counts:?}");
}

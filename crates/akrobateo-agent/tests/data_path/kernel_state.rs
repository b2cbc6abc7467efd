//! The kernel's state of one node's data path, and changes of this state by other programs. Does I/O in the network
//! namespace of the calling thread.

use std::process::Command;

use akrobateo_agent::table::{inet_table_id, netdev_table_id};
use akrobateo_agent::tunnel;
use links::{Client, ObservedObjects, Route, Rule};
use netfilter::nft::client::Nftables;
use netfilter::nft::model::{
    Chain, ChainType, DataType, ElementValue, Hook, Set, SetDefinition, Table, Value, Verdict,
};
use netfilter::nft::{Action, InstalledTable, Transaction};

use crate::random::Random;

/// Everything that the data path has installed. Numbers that the kernel chooses are replaced by zero, and lists are
/// sorted.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct KernelState {
    tables: Vec<Option<InstalledTable>>,
    /// The list of all tables, as nft(8) prints the list.
    table_names: String,
    routes: Vec<Option<Route>>,
    rules: Vec<Option<Rule>>,
    /// The objects on the tunnel's device.
    observed_objects: ObservedObjects,
}

impl KernelState {
    pub(crate) fn read() -> Self {
        let nftables = Nftables::open().unwrap();
        let tables = [inet_table_id(), netdev_table_id()].map(|id| {
            let mut installed = nftables.read(&id).unwrap().1?;
            installed.table.sets.sort_by(|set, other| set.name.cmp(&other.name));
            installed.table.chains.sort_by(|chain, other| chain.name.cmp(&other.name));
            Some(installed)
        });
        let mut observed_objects = Client::open(tunnel::owner()).unwrap().observe().unwrap();
        if let Some(device) = &mut observed_objects.device {
            device.index = 0;
        }
        let mut routes: Vec<_> = observed_objects.routes.drain(..).map(|route| route.route).collect();
        routes.sort_unstable();
        let mut rules: Vec<_> = observed_objects.rules.drain(..).map(|rule| rule.rule).collect();
        rules.sort_unstable();
        let list = Command::new("nft").args(["list", "tables"]).output().unwrap();
        let mut table_names: Vec<_> =
            String::from_utf8(list.stdout).unwrap().lines().map(str::to_owned).collect();
        table_names.sort_unstable();
        Self { tables: tables.into(), table_names: table_names.join(", "), routes, rules, observed_objects }
    }
}

impl Default for KernelState {
    /// Returns the state without a data path.
    fn default() -> Self {
        Self {
            tables: vec![None; 2],
            table_names: String::new(),
            routes: Vec::new(),
            rules: Vec::new(),
            observed_objects: ObservedObjects::default(),
        }
    }
}

/// Commands of another program. A command fails if the object of the command does not exist.
const DISTURBING_COMMANDS: [&str; 26] = [
    "nft flush ruleset",
    "nft flush table inet akrobateo",
    "nft flush table netdev akrobateo",
    "nft delete table inet akrobateo",
    "nft add table inet akrobateo { flags dormant; }",
    "nft add chain inet akrobateo nat_pre { policy drop; }",
    "nft add rule inet akrobateo nat_post log",
    "nft add rule inet akrobateo nat_pre tcp dport { 7, 8 } accept",
    "nft add set inet akrobateo other { type mark; flags constant; elements = { 1 }; }",
    "ip link set akr0 down",
    "ip link delete akr0",
    "ip link set akr0 mtu 1000",
    "ip link set akr0 address 02:00:00:00:00:77",
    "ip address flush dev akr0",
    "ip address add fd77::1/64 dev akr0",
    "ip neighbour flush dev akr0 nud permanent",
    "bridge fdb append 00:00:00:00:00:00 dev akr0 dst 10.99.0.77",
    "bridge fdb delete 02:61:6b:72:00:03 dev akr0",
    "ip route flush table 1802633216",
    "ip rule delete priority 96",
    "ip -6 rule delete priority 96",
    "ip rule delete priority 97",
    "ip -6 rule delete priority 98",
    "ip -6 route flush table 0x6b730002",
    "ip neighbour delete 169.254.192.3 dev akr0",
    "ip rule add priority 96 fwmark 0x6b720000/0xffff0000 lookup 7 protocol 107",
];

/// Changes the state of the data path as another program does.
pub(crate) fn disturb(random: &mut Random) {
    if random.random_bool(40) {
        let mut words = random.choose(&DISTURBING_COMMANDS).split(' ');
        Command::new(words.next().unwrap()).args(words).output().unwrap();
        return;
    }
    let nftables = Nftables::open().unwrap();
    let id = if random.random_bool(75) { inet_table_id() } else { netdev_table_id() };
    if let Some(installed) = nftables.read(&id).unwrap().1 {
        disturb_table(&nftables, &installed.table, random);
    }
}

/// Deletes or changes a random object of a table.
fn disturb_table(nftables: &Nftables, table: &Table, random: &mut Random) {
    let id = &table.id;
    let mut transaction = Transaction::default();
    let foreign_set = Set::new("foreign", SetDefinition::set(DataType::MARK), Vec::new());
    let foreign_chain = Chain::base("foreign", ChainType::Filter, Hook::Prerouting, 5, Vec::new());
    let mut changed_element = None;
    match random.number_below(7) {
        0 => transaction = Transaction::delete(id),
        1 => delete_rule(&mut transaction, table, random),
        2 if !table.chains.is_empty() => {
            transaction.push(id, Action::FlushChain(&random.choose(&table.chains).name));
        }
        3 => transaction.push(id, Action::CreateSet(&foreign_set)),
        4 => transaction.push(id, Action::CreateChain(&foreign_chain)),
        _ => {
            let sets: Vec<_> = table.sets.iter().filter(|set| !set.elements.is_empty()).collect();
            if sets.is_empty() {
                return;
            }
            let set = *random.choose(&sets);
            let element = random.choose(&set.elements);
            transaction.push(id, Action::DeleteElements(set, vec![element]));
            if random.random_bool(50) {
                let changed_element = changed_element.insert(element.clone());
                match &mut changed_element.value {
                    Some(ElementValue::Verdict(verdict)) => *verdict = Verdict::Drop,
                    Some(ElementValue::Data(value)) => *value = invert(*value),
                    None => return,
                }
                transaction.push(id, Action::AddElements(set, vec![changed_element]));
            }
        }
    }
    // The kernel rejects some of these changes.
    let _ = nftables.execute(&transaction);
}

/// Deletes one random rule of a random chain.
fn delete_rule<'a>(transaction: &mut Transaction<'a>, table: &'a Table, random: &mut Random) {
    let chains: Vec<_> = table.chains.iter().filter(|chain| !chain.rules.is_empty()).collect();
    if chains.is_empty() {
        return;
    }
    let chain = *random.choose(&chains);
    let deleted_index = random.number_below(chain.rules.len());
    transaction.push(&table.id, Action::FlushChain(&chain.name));
    for (index, rule) in chain.rules.iter().enumerate() {
        if index != deleted_index {
            transaction.push(&table.id, Action::AddRule(&chain.name, rule));
        }
    }
}

fn invert(value: Value) -> Value {
    let bytes: Vec<_> = value.bytes().iter().map(|byte| !byte).collect();
    Value::from_slice(&bytes).unwrap()
}

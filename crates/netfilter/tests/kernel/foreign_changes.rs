//! Tests with changes by other programs: the watch reports the changes, and the transaction of `diff` reverts the
//! changes.

use std::collections::BTreeSet;

use netfilter::nft::client::Nftables;
use netfilter::nft::model::{
    BaseChain, Chain, ChainType, DataType, Element, Expr, Hook, Reg, Rule, Set, SetDefinition, Table,
    TableFamily, TableId, Value, Verdict,
};
use netfilter::nft::watch::{ChangeFilter, ChangedObject, ForeignChanges, TableChange, Watch};
use netfilter::nft::{Action, ForeignObject, Transaction, diff};
use netns_testkit::{Namespace, eventually, isolated};

/// A table with a set, a verdict map, a regular chain and a base chain.
fn table() -> Table {
    let port = |port: u16| Value::from(port.to_be_bytes());
    let service = Element::new(port(80)).with_verdict(Verdict::goto("accepted"));
    let load_port = Expr::payload(netfilter::nft::model::PayloadBase::Transport, 2, 2, Reg(0));
    let rules = vec![
        Rule::new(vec![load_port.clone(), Expr::is_in("ports", Reg(0)), Expr::Verdict(Verdict::Accept)]),
        Rule::new(vec![load_port, Expr::verdict_map("services", Reg(0))]),
    ];
    Table {
        sets: vec![
            Set::new(
                "ports",
                SetDefinition::set(DataType::PORT),
                vec![Element::new(port(1)), Element::new(port(2))],
            ),
            Set::new("services", SetDefinition::verdict_map(DataType::PORT), vec![service]),
        ],
        chains: vec![
            Chain::regular("accepted", vec![Rule::new(vec![Expr::Verdict(Verdict::Accept)])]),
            Chain::base("input", ChainType::Filter, Hook::Input, 0, rules),
        ],
        ..Table::empty(TableId::new(TableFamily::Inet, "akrobateo"))
    }
}

/// The changes that another program makes, each with the resulting objects that this crate cannot describe.
const FOREIGN_CHANGES: [(&str, &[&str]); 16] = [
    ("delete table inet akrobateo", &[]),
    ("flush ruleset", &[]),
    ("flush table inet akrobateo", &[]),
    ("flush chain inet akrobateo input", &[]),
    ("flush set inet akrobateo ports", &[]),
    ("delete element inet akrobateo ports { 1 }", &[]),
    ("add element inet akrobateo ports { 3 }", &[]),
    ("add element inet akrobateo services { 81 : drop }", &[]),
    ("add rule inet akrobateo input drop", &[]),
    ("add rule inet akrobateo input log", &["RuleIn"]),
    ("add rule inet akrobateo accepted tcp dport { 7, 8 } accept", &[]),
    ("add chain inet akrobateo other", &[]),
    ("add set inet akrobateo other { type mark; }", &[]),
    ("add set inet akrobateo other { type mark; flags constant; elements = { 1 }; }", &["Set"]),
    ("add chain inet akrobateo input { policy drop; }", &[]),
    ("add table inet akrobateo { flags dormant; }", &["TableFlag"]),
];

#[test]
fn difference_repairs_each_change_by_another_program() {
    isolated(|| {
        let table = table();
        assert_eq!(table.check(), Ok(()));
        for (change, foreign_objects) in FOREIGN_CHANGES {
            let namespace = Namespace::new();
            let nftables = namespace.run(|| Nftables::open().unwrap());
            nftables.execute(&Transaction::create(&table)).unwrap();
            namespace.load_nft(&format!("{change}\n"));
            let installed = nftables.read(&table.id).unwrap().1;
            let observed_objects: Vec<_> =
                installed.iter().flat_map(|installed| &installed.foreign_objects).collect();
            assert_eq!(observed_objects.len(), foreign_objects.len(), "{change}: {observed_objects:?}");
            for (object, name) in observed_objects.iter().zip(foreign_objects) {
                assert!(format!("{object:?}").starts_with(name), "{change}: {object:?}");
            }
            let transaction = diff(installed.as_ref(), &table);
            assert!(!transaction.is_empty(), "{change}");
            let is_replacement =
                transaction.steps.iter().any(|step| matches!(step.action, Action::CreateTable));
            assert_eq!(is_replacement, installed.is_none(), "{change}");
            nftables.execute(&transaction).unwrap_or_else(|error| panic!("{change}: {error}"));
            let repaired_table = nftables.read(&table.id).unwrap().1.unwrap();
            assert!(repaired_table.equals_ignoring_state(&table), "{change}: {repaired_table:?}");
        }
    });
}

/// The kernel rejects a new base chain in a transaction that also clears the flag.
#[test]
fn dormant_table_is_replaced_if_it_needs_a_new_base_chain() {
    isolated(|| {
        let table = table();
        for missing_base in [None, table.chains[1].base.clone()] {
            let mut old_table = table.clone();
            match missing_base {
                None => _ = old_table.chains.pop(),
                Some(base) => {
                    old_table.chains[1].base = Some(BaseChain { priority: base.priority + 1, ..base });
                }
            }
            let namespace = Namespace::new();
            let nftables = namespace.run(|| Nftables::open().unwrap());
            nftables.execute(&Transaction::create(&old_table)).unwrap();
            namespace.load_nft("add table inet akrobateo { flags dormant; }\n");
            let installed = nftables.read(&table.id).unwrap().1;
            nftables.update(installed.as_ref(), &table).unwrap();
            let repaired_table = nftables.read(&table.id).unwrap().1.unwrap();
            assert!(repaired_table.equals_ignoring_state(&table), "{repaired_table:?}");
        }
    });
}

#[test]
fn watch_reports_only_changes_of_watched_tables_by_other_programs() {
    isolated(|| {
        let table = table();
        for (change, _) in FOREIGN_CHANGES {
            let namespace = Namespace::new();
            let (nftables, watch) = namespace.run(|| (Nftables::open().unwrap(), Watch::open().unwrap()));
            let filter = ChangeFilter {
                tables: BTreeSet::from([table.id.clone()]),
                own_port_ids: BTreeSet::from([nftables.port_id().unwrap()]),
            };
            nftables.execute(&Transaction::create(&table)).unwrap();
            assert!(watch.receive(&filter).unwrap().is_empty(), "own changes are reported");
            namespace.load_nft("table inet kube-proxy { set ports { type mark; elements = { 1 }; }; }\n");
            assert!(watch.receive(&filter).unwrap().is_empty(), "changes of another table are reported");
            namespace.load_nft(&format!("{change}\n"));
            let changes = eventually("the change is reported", || {
                Some(watch.receive(&filter).unwrap()).filter(|changes| !changes.is_empty())
            });
            assert!(!changes.is_incomplete && changes.programs.contains("nft"), "{change}: {changes:?}");
            nftables.update(nftables.read(&table.id).unwrap().1.as_ref(), &table).unwrap();
            assert!(watch.receive(&filter).unwrap().is_empty(), "the repair is reported");
        }
    });
}

#[test]
fn reported_change_contains_the_name_of_its_object() {
    isolated(|| {
        let table = table();
        let namespace = Namespace::new();
        let (nftables, watch) = namespace.run(|| (Nftables::open().unwrap(), Watch::open().unwrap()));
        nftables.execute(&Transaction::create(&table)).unwrap();
        let filter = ChangeFilter {
            tables: BTreeSet::from([table.id.clone()]),
            own_port_ids: BTreeSet::from([nftables.port_id().unwrap()]),
        };
        for (change, object, is_deletion) in [
            (
                "delete element inet akrobateo ports { 1 }",
                ChangedObject::ElementOfSet("ports".to_owned()),
                true,
            ),
            (
                "add element inet akrobateo ports { 3 }",
                ChangedObject::ElementOfSet("ports".to_owned()),
                false,
            ),
            ("add rule inet akrobateo input drop", ChangedObject::RuleInChain("input".to_owned()), false),
            ("flush chain inet akrobateo input", ChangedObject::RuleInChain("input".to_owned()), true),
            ("add counter inet akrobateo other", ChangedObject::Other, false),
            ("add chain inet akrobateo other", ChangedObject::Chain("other".to_owned()), false),
        ] {
            namespace.load_nft(&format!("{change}\n"));
            let changes = watch.receive(&filter).unwrap();
            let expected = TableChange { table: table.id.clone(), object, is_deletion };
            assert_eq!(changes.changes, BTreeSet::from([expected]), "{change}");
        }
    });
}

#[test]
fn lost_notifications_are_reported() {
    isolated(|| {
        let port = |number: u32| Element::new(Value::from(number.to_be_bytes()));
        let elements = (0..50_000).map(port).collect();
        let table = Table {
            sets: vec![Set::new("addresses", SetDefinition::set(DataType::IPV4), elements)],
            ..Table::empty(TableId::new(TableFamily::Ip, "other"))
        };
        Namespace::new().run(|| {
            let (nftables, watch) = (Nftables::open().unwrap(), Watch::open().unwrap());
            let filter = ChangeFilter { tables: BTreeSet::new(), own_port_ids: BTreeSet::new() };
            // The notifications exceed the small buffer of an ordinary user, and also the large buffer of root.
            for _ in 0..20 {
                nftables.replace(&table).unwrap();
            }
            assert!(watch.receive(&filter).unwrap().is_incomplete);
            assert_eq!(watch.receive(&filter).unwrap(), ForeignChanges::default());
        });
    });
}

#[test]
fn error_mentions_the_object_that_the_kernel_rejected() {
    isolated(|| {
        Namespace::new().run(|| {
            let nftables = Nftables::open().unwrap();
            let table = table();
            nftables.execute(&Transaction::create(&table)).unwrap();
            let error = nftables.execute(&Transaction::create(&table)).unwrap_err();
            assert!(error.to_string().contains("create the table inet akrobateo"), "{error}");
            let missing_element = Element::new(Value::from([0, 9]));
            let mut transaction = Transaction::default();
            transaction.push(&table.id, Action::FlushChain("input"));
            transaction.push(&table.id, Action::DeleteElements(&table.sets[0], vec![&missing_element]));
            let error = nftables.execute(&transaction).unwrap_err();
            assert!(error.to_string().contains("delete 1 elements of the set ports"), "{error}");
            // The kernel has not executed any step of the transaction.
            assert_eq!(nftables.read(&table.id).unwrap().1, Some(table.clone().into()));
            let rule = Rule::new(vec![Expr::Verdict(Verdict::jump("missing"))]);
            let mut transaction = Transaction::default();
            transaction.push(&table.id, Action::AddRule("input", &rule));
            let error = nftables.execute(&transaction).unwrap_err();
            assert!(error.to_string().contains("add a rule to the chain input of the table inet"), "{error}");
        });
    });
}

#[test]
fn foreign_chain_and_foreign_element_are_repaired() {
    let table = table();
    let mut installed = netfilter::nft::InstalledTable::from(table.clone());
    installed.foreign_objects =
        vec![ForeignObject::Chain("offloaded".into()), ForeignObject::ElementOfSet("ports".into())];
    let steps: Vec<_> = diff(Some(&installed), &table).steps.iter().map(ToString::to_string).collect();
    assert_eq!(
        steps,
        [
            "flush the chain offloaded of the table inet akrobateo",
            "flush the set ports of the table inet akrobateo",
            "delete the chain offloaded of the table inet akrobateo",
            "add 2 elements to the set ports of the table inet akrobateo",
        ]
    );
}

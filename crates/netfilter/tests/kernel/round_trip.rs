//! Tests that the kernel lists a table as it was written, and that `diff` leads to the desired table.

use netfilter::netlink::Message;
use netfilter::nft::client::Nftables;
use netfilter::nft::decode::Decoder;
use netfilter::nft::model::TableId;
use netfilter::nft::{Batch, InstalledTable, Table, Transaction, diff};
use netns_testkit::{Namespace, isolated};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use crate::random_tables::{any_table_pair, any_table_seed};

/// Returns the settings for a number of random cases. The environment variable `PROPTEST_CASES` changes this number,
/// and `PROPTEST_RNG_SEED` repeats a run.
pub(crate) fn proptest_config(default_count: u32) -> ProptestConfig {
    if std::env::var_os("PROPTEST_CASES").is_some() {
        ProptestConfig { failure_persistence: None, ..ProptestConfig::default() }
    } else {
        ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(default_count) }
    }
}

/// Creates a namespace with the interfaces of random tables.
fn create_netns() -> Namespace {
    let namespace = Namespace::new();
    namespace.ip("link add eth0 type veth peer name eth1");
    namespace
}

/// Reads the table.
fn read_table(nftables: &Nftables, id: &TableId) -> Option<InstalledTable> {
    nftables.read(id).unwrap().1
}

/// Encodes a transaction, and decodes the table that it creates.
fn encode_and_decode(transaction: &Transaction<'_>, id: &TableId) -> Option<InstalledTable> {
    let mut decoder = Decoder::new(id);
    for message in Message::parse_all(Batch::encode(transaction).messages.bytes()) {
        decoder.add_message(&message);
    }
    decoder.finish()
}

#[test]
fn kernel_lists_random_tables_as_they_were_written() {
    isolated(|| {
        let check = |seed: crate::random_tables::TableSeed| {
            let table = seed.build();
            prop_assert_eq!(table.check(), Ok(()));
            let expected = Some(InstalledTable::from(table.clone()));
            prop_assert_eq!(&encode_and_decode(&Transaction::create(&table), &table.id), &expected);
            let nftables = Nftables::open().unwrap();
            prop_assert_eq!(nftables.check_support(&table), Ok(()));
            prop_assert_eq!(nftables.execute(&Transaction::create(&table)), Ok(()));
            prop_assert_eq!(&read_table(&nftables, &table.id), &expected);
            prop_assert_eq!(nftables.execute(&Transaction::delete(&table.id)), Ok(()));
            prop_assert_eq!(read_table(&nftables, &table.id), None);
            Ok(())
        };
        create_netns().run(|| TestRunner::new(proptest_config(80)).run(&any_table_seed(), check).unwrap());
    });
}

#[test]
fn difference_of_random_tables_leads_to_the_desired_table() {
    isolated(|| {
        let check = |(installed, desired): (Table, Table)| {
            let nftables = Nftables::open().unwrap();
            prop_assert_eq!(nftables.replace(&installed), Ok(()));
            let installed = InstalledTable::from(installed);
            let fail =
                |error| TestCaseError::fail(format!("{error}: {:?}", diff(Some(&installed), &desired)));
            nftables.update(Some(&installed), &desired).map_err(fail)?;
            let result = read_table(&nftables, &desired.id).unwrap();
            prop_assert!(result.equals_ignoring_state(&desired), "{:?}", result);
            prop_assert!(diff(Some(&result), &desired).is_empty());
            nftables.execute(&Transaction::delete(&desired.id)).unwrap();
            Ok(())
        };
        create_netns().run(|| TestRunner::new(proptest_config(80)).run(&any_table_pair(), check).unwrap());
    });
}

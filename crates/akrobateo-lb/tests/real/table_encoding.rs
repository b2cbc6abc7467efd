//! The encoding of tables: decoding returns the encoded table, and the kernel lists the installed table unchanged.

use std::net::IpAddr;

use akrobateo_core::{Forward, Protocol, ProxyArgs};
use akrobateo_lb::forwarding_config::ForwardingConfig;
use akrobateo_lb::ruleset;
use ipnet::IpNet;
use netfilter::netlink::Message;
use netfilter::nft::client::Nftables;
use netfilter::nft::decode::Decoder;
use netfilter::nft::model::Counter;
use netfilter::nft::{Batch, Table, Transaction};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use crate::harness::{Namespace, isolated};

fn any_ip() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        any::<u32>().prop_map(|bits| IpAddr::from(bits.to_be_bytes())),
        any::<u128>().prop_map(|bits| IpAddr::from(bits.to_be_bytes())),
    ]
}

fn any_forward() -> impl Strategy<Value = Forward> {
    let protocol = prop::sample::select(&Protocol::ALL[..]);
    (protocol, 1024..=u16::MAX, any_ip(), 1..=u16::MAX).prop_map(|(protocol, port, ip, target_port)| {
        Forward { protocol, port: port.try_into().unwrap(), target: (ip, target_port).into() }
    })
}

fn any_source_range() -> impl Strategy<Value = IpNet> {
    (any_ip(), 0..=128_u8).prop_map(|(ip, length)| IpNet::new(ip, length).unwrap_or_else(|_| ip.into()))
}

fn any_config() -> impl Strategy<Value = ForwardingConfig> {
    let forwards = prop::collection::vec(any_forward(), 1..300);
    let sources = prop::collection::vec(any_source_range(), 0..20);
    (forwards, sources).prop_filter_map("invalid configuration", |(forwards, sources)| {
        ForwardingConfig::new(ProxyArgs { sources, probe_port: 1, ..ProxyArgs::new(forwards) }).ok()
    })
}

/// Encodes the table as a transaction, and decodes the transaction.
fn encode_and_decode(table: &Table) -> Table {
    let mut decoder = Decoder::new(&ruleset::table_id());
    for message in Message::parse_all(Batch::encode(&Transaction::replace(table)).messages.bytes()) {
        decoder.add_message(&message);
    }
    let installed = decoder.finish().unwrap();
    assert_eq!(installed.foreign_objects, []);
    installed.table
}

/// Sets all counters of the table.
fn with_counters(mut table: Table, mut next_counter: impl FnMut() -> Counter) -> Table {
    for set in table.sets.iter_mut().filter(|set| set.definition.has_counters) {
        set.elements.iter_mut().for_each(|element| element.counter = next_counter());
    }
    table
}

proptest! {
    // Fewer cases than usual, because each case has hundreds of ports.
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn encoded_table_decodes_to_the_same_table(config in any_config(), counts in any::<[u64; 7]>()) {
        let table = ruleset::build_table(&config);
        prop_assert_eq!(&encode_and_decode(&table), &table);
        let mut number = 0;
        let table = with_counters(table, || {
            number += 1;
            Counter { packets: counts[number % 7], bytes: counts[number * 3 % 7] }
        });
        prop_assert_eq!(encode_and_decode(&table), table);
    }

    #[test]
    fn decoding_of_arbitrary_bytes_does_not_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        position in 0..2_000_usize,
    ) {
        let config = ForwardingConfig::new(ProxyArgs {
            sources: vec!["10.0.0.0/8".parse().unwrap()],
            ..ProxyArgs::new(vec!["tcp/80=10.0.0.1:80".parse().unwrap()])
        });
        let table = ruleset::build_table(&config.unwrap());
        let mut transaction = Batch::encode(&Transaction::replace(&table)).messages.bytes().to_vec();
        let start = position % transaction.len();
        let end = (start + bytes.len()).min(transaction.len());
        transaction[start..end].copy_from_slice(&bytes[..end - start]);
        let mut decoder = Decoder::new(&ruleset::table_id());
        for message in Message::parse_all(&transaction) {
            decoder.add_message(&message);
        }
    }
}

#[test]
fn kernel_lists_the_table_as_it_was_encoded() {
    isolated(|| {
        let check = |config: ForwardingConfig| {
            let nftables = Nftables::open().unwrap();
            let mut number = 0;
            let table = with_counters(ruleset::build_table(&config), || {
                number += 1;
                Counter { packets: number, bytes: number << 40 }
            });
            nftables.replace(&table).unwrap();
            let (generation, installed) = nftables.read(&ruleset::table_id()).unwrap();
            prop_assert_eq!(installed, Some(table.into()));
            prop_assert_eq!(nftables.generation().unwrap(), generation);
            Ok(())
        };
        let run = || TestRunner::new(ProptestConfig::with_cases(64)).run(&any_config(), check).unwrap();
        Namespace::new().run(run);
    });
}

#[test]
fn kernel_lists_unusual_source_ranges_as_they_were_encoded() {
    isolated(|| {
        let ranges = [
            "0.0.0.0/0 ::/0",
            "0.0.0.0/32 255.255.255.255/32 ::/128 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128",
            "0.0.0.0/1 128.0.0.0/1 ::/1 8000::/1",
            "10.0.0.1/31 10.0.0.2/31 10.0.0.5/32 fd00::1/127 fd00::2/127 fd00::5/128",
            "10.1.2.3/8 10.0.0.0/8 10.0.0.0/24",
            "fd00::/8",
        ];
        for ranges in ranges {
            let sources = ranges.split(' ').map(|range| range.parse().unwrap()).collect();
            let forwards =
                ["tcp/80=10.0.0.1:80", "udp/80=[fd00::1]:80"].map(|text| text.parse().unwrap()).into();
            let config =
                ForwardingConfig::new(ProxyArgs { sources, probe_port: 1, ..ProxyArgs::new(forwards) })
                    .unwrap();
            let table = ruleset::build_table(&config);
            assert_eq!(encode_and_decode(&table), table);
            Namespace::new().run(|| {
                let nftables = Nftables::open().unwrap();
                nftables.replace(&table).unwrap();
                assert_eq!(nftables.read(&ruleset::table_id()).unwrap().1, Some(table.into()), "{ranges}");
            });
        }
    });
}

/// Returns a configuration of the TCP ports from `first` to `last` in both families.
fn build_config_of_tcp_ports(first: u16, last: u16) -> ForwardingConfig {
    let forwards = |ip: &str| {
        let target = (ip.parse::<IpAddr>().unwrap(), 80).into();
        let forward =
            move |port: u16| Forward { protocol: Protocol::Tcp, port: port.try_into().unwrap(), target };
        (first..=last).map(forward).collect::<Vec<_>>()
    };
    let forwards = [forwards("10.96.3.7"), forwards("fd00:96::7")].concat();
    ForwardingConfig::new(ProxyArgs { probe_port: 1, ..ProxyArgs::new(forwards) }).unwrap()
}

#[test]
fn table_of_all_ports_of_both_families_decodes_to_the_same_table() {
    let table = ruleset::build_table(&build_config_of_tcp_ports(2, u16::MAX));
    assert!(encode_and_decode(&table) == table, "the decoded table differs");
}

#[test]
fn thousands_of_ports_fit_into_one_transaction() {
    isolated(|| {
        // A single list of all elements would exceed 64 KiB. The transaction for this table is the longest that the
        // kernel's default limit allows in a user namespace.
        let table = ruleset::build_table(&build_config_of_tcp_ports(10_001, 11_800));
        Namespace::new().run(|| {
            let nftables = Nftables::open().unwrap();
            nftables.replace(&table).unwrap();
            assert!(
                nftables.read(&ruleset::table_id()).unwrap().1 == Some(table.into()),
                "the kernel does not list the installed table"
            );
        });
    });
}

#[test]
fn error_about_a_too_large_transaction_mentions_the_sysctl() {
    isolated(|| {
        let wmem_max = std::fs::read_to_string("/proc/sys/net/core/wmem_max").unwrap();
        // The kernel's real limit is twice `wmem_max`, and a range needs 40 bytes.
        let range_count = wmem_max.trim().parse::<u32>().unwrap() / 20 + 1000;
        let range = |number: u32| IpNet::from(IpAddr::from((number * 2).to_be_bytes()));
        let forwards = vec!["tcp/80=10.0.0.1:80".parse().unwrap()];
        let args = ProxyArgs {
            sources: (0..range_count).map(range).collect(),
            probe_port: 1,
            ..ProxyArgs::new(forwards)
        };
        let table = ruleset::build_table(&ForwardingConfig::new(args).unwrap());
        let error = Namespace::new().run(|| Nftables::open().unwrap().replace(&table)).unwrap_err();
        assert!(error.to_string().contains("net.core.wmem_max"), "{error}");
    });
}

#[test]
fn read_of_a_missing_table_returns_none() {
    isolated(|| {
        let check = || assert_eq!(Nftables::open().unwrap().read(&ruleset::table_id()).unwrap().1, None);
        Namespace::new().run(check);
    });
}

//! What is planned is what is encoded, and what the kernel then holds.

use std::net::IpAddr;

use akrobateo_core::{Forward, Protocol, ProxyArgs};
use akrobateo_lb::forwarding_config::ForwardingConfig;
use akrobateo_lb::ruleset;
use ipnet::IpNet;
use netfilter::netlink::Message;
use netfilter::nft::client::Nftables;
use netfilter::nft::decode::Decoder;
use netfilter::nft::model::Count;
use netfilter::nft::{Batch, Table};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use crate::harness::{Namespace, isolated};

fn ip() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        any::<u32>().prop_map(|bits| IpAddr::from(bits.to_be_bytes())),
        any::<u128>().prop_map(|bits| IpAddr::from(bits.to_be_bytes())),
    ]
}

fn forward() -> impl Strategy<Value = Forward> {
    let protocol = prop::sample::select(&Protocol::ALL[..]);
    (protocol, 1024..=u16::MAX, ip(), 1..=u16::MAX).prop_map(|(protocol, port, ip, to)| Forward {
        protocol,
        port: port.try_into().unwrap(),
        target: (ip, to).into(),
    })
}

fn source() -> impl Strategy<Value = IpNet> {
    (ip(), 0..=128_u8).prop_map(|(ip, len)| IpNet::new(ip, len).unwrap_or_else(|_| ip.into()))
}

fn plan() -> impl Strategy<Value = ForwardingConfig> {
    let forwards = prop::collection::vec(forward(), 1..300);
    let sources = prop::collection::vec(source(), 0..20);
    (forwards, sources).prop_filter_map("contradictory or unreachable", |(forwards, sources)| {
        ForwardingConfig::new(ProxyArgs { sources, probe_port: 1, ..ProxyArgs::new(forwards) }).ok()
    })
}

/// What the transaction for a table says.
fn decoded(table: &Table) -> Table {
    let mut decoder = Decoder::new(ruleset::TABLE);
    for message in Message::all(Batch::replace(table).messages.bytes()) {
        decoder.message(&message).unwrap();
    }
    decoder.finish().unwrap()
}

/// The same table with counters that have counted.
fn counting(mut table: Table, mut counts: impl FnMut() -> Count) -> Table {
    for set in table.sets.iter_mut().filter(|set| set.counted) {
        set.elements.iter_mut().for_each(|element| element.count = counts());
    }
    table
}

proptest! {
    // Each case is hundreds of ports.
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_was_encoded_decodes_to_the_same_table(plan in plan(), counts in any::<[u64; 7]>()) {
        let table = ruleset::table(&plan);
        prop_assert_eq!(&decoded(&table), &table);
        let mut at = 0;
        let table = counting(table, || {
            at += 1;
            Count { packets: counts[at % 7], bytes: counts[at * 3 % 7] }
        });
        prop_assert_eq!(decoded(&table), table);
    }

    #[test]
    fn the_decoder_takes_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..300), at in 0..2_000_usize) {
        let plan = ForwardingConfig::new(ProxyArgs {
            sources: vec!["10.0.0.0/8".parse().unwrap()],
            ..ProxyArgs::new(vec!["tcp/80=10.0.0.1:80".parse().unwrap()])
        });
        let mut batch = Batch::replace(&ruleset::table(&plan.unwrap())).messages.bytes().to_vec();
        let at = at % batch.len();
        let end = (at + bytes.len()).min(batch.len());
        batch[at..end].copy_from_slice(&bytes[..end - at]);
        let mut decoder = Decoder::new(ruleset::TABLE);
        for message in Message::all(&batch) {
            let _ = decoder.message(&message);
        }
    }
}

#[test]
fn the_kernel_holds_what_was_planned() {
    isolated(|| {
        let holds = |plan: ForwardingConfig| {
            let nftables = Nftables::open().unwrap();
            let mut number = 0;
            let table = counting(ruleset::table(&plan), || {
                number += 1;
                Count { packets: number, bytes: number << 40 }
            });
            nftables.replace(&table).unwrap();
            let (generation, listed) = nftables.read(ruleset::TABLE).unwrap();
            prop_assert_eq!(listed, Ok(Some(table)));
            prop_assert_eq!(nftables.generation().unwrap(), generation);
            Ok(())
        };
        let run = || TestRunner::new(ProptestConfig::with_cases(64)).run(&plan(), holds).unwrap();
        Namespace::new().run(run);
    });
}

#[test]
fn the_kernel_holds_unusual_ranges_as_planned() {
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
            let plan =
                ForwardingConfig::new(ProxyArgs { sources, probe_port: 1, ..ProxyArgs::new(forwards) })
                    .unwrap();
            let table = ruleset::table(&plan);
            assert_eq!(decoded(&table), table);
            Namespace::new().run(|| {
                let nftables = Nftables::open().unwrap();
                nftables.replace(&table).unwrap();
                assert_eq!(nftables.read(ruleset::TABLE).unwrap().1, Ok(Some(table)), "{ranges}");
            });
        }
    });
}

/// The TCP ports from `first` to `last` in both families.
fn many_ports(first: u16, last: u16) -> ForwardingConfig {
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
fn every_port_of_both_families_is_encoded() {
    let table = ruleset::table(&many_ports(2, u16::MAX));
    assert!(decoded(&table) == table, "it decodes to something else");
}

#[test]
fn thousands_of_ports_of_both_families_fit_into_one_transaction() {
    isolated(|| {
        // Each list of elements would be longer than 64 KiB; all are as long as the kernel's default allows for
        // whoever is root in a user namespace only.
        let table = ruleset::table(&many_ports(10_001, 11_800));
        Namespace::new().run(|| {
            let nftables = Nftables::open().unwrap();
            nftables.replace(&table).unwrap();
            assert!(nftables.read(ruleset::TABLE).unwrap().1 == Ok(Some(table)), "lists something else");
        });
    });
}

#[test]
fn what_is_too_much_for_one_transaction_is_refused_with_what_to_change() {
    isolated(|| {
        let limit = std::fs::read_to_string("/proc/sys/net/core/wmem_max").unwrap();
        // The kernel doubles it, and a range takes 40 bytes.
        let ranges = limit.trim().parse::<u32>().unwrap() / 20 + 1000;
        let range = |number: u32| IpNet::from(IpAddr::from((number * 2).to_be_bytes()));
        let forwards = vec!["tcp/80=10.0.0.1:80".parse().unwrap()];
        let args = ProxyArgs {
            sources: (0..ranges).map(range).collect(),
            probe_port: 1,
            ..ProxyArgs::new(forwards)
        };
        let table = ruleset::table(&ForwardingConfig::new(args).unwrap());
        let refused = Namespace::new().run(|| Nftables::open().unwrap().replace(&table)).unwrap_err();
        assert!(refused.to_string().contains("net.core.wmem_max"), "{refused}");
    });
}

#[test]
fn a_table_that_is_not_there_is_not_there() {
    isolated(|| {
        let nothing = || assert_eq!(Nftables::open().unwrap().read(ruleset::TABLE).unwrap().1, Ok(None));
        Namespace::new().run(nothing);
    });
}

//! What is planned is what is encoded, and what the kernel then holds.

use std::net::IpAddr;

use akrobateo_lb::netlink::Message;
use akrobateo_lb::nft::Batch;
use akrobateo_lb::nft::decode::Decoder;
use akrobateo_lb::nft::kernel::Nftables;
use akrobateo_lb::plan::Plan;
use akrobateo_lb::ruleset;
use contract::{Forward, Protocol, ProxyArgs};
use ipnet::IpNet;
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

fn plan() -> impl Strategy<Value = Plan> {
    let forwards = prop::collection::vec(forward(), 1..300);
    let sources = prop::collection::vec(source(), 0..20);
    (forwards, sources).prop_filter_map("contradictory or unreachable", |(forwards, sources)| {
        Plan::new(&ProxyArgs { sources, probe_port: 1, ..ProxyArgs::new(forwards) }).ok()
    })
}

proptest! {
    #[test]
    fn what_was_encoded_decodes_to_the_same_table(plan in plan()) {
        let table = ruleset::table(&plan);
        let mut decoder = Decoder::new(ruleset::TABLE);
        for message in Message::all(Batch::replace(&table).messages.bytes()) {
            decoder.message(&message).unwrap();
        }
        prop_assert_eq!(decoder.finish(), Some(table));
    }

    #[test]
    fn the_decoder_takes_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..300), at in 0..2_000_usize) {
        let plan = Plan::new(&ProxyArgs {
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
        let holds = |plan: Plan| {
            let nftables = Nftables::open().unwrap();
            let table = ruleset::table(&plan);
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
fn every_port_of_both_families_fits_into_one_transaction() {
    isolated(|| {
        let forwards = |ip: &str| {
            let target = (ip.parse::<IpAddr>().unwrap(), 80).into();
            let forward =
                move |port: u16| Forward { protocol: Protocol::Tcp, port: port.try_into().unwrap(), target };
            (2..=u16::MAX).map(forward).collect::<Vec<_>>()
        };
        let forwards = [forwards("10.96.3.7"), forwards("fd00:96::7")].concat();
        let plan = Plan::new(&ProxyArgs { probe_port: 1, ..ProxyArgs::new(forwards) }).unwrap();
        let table = ruleset::table(&plan);
        Namespace::new().run(|| {
            let nftables = Nftables::open().unwrap();
            nftables.replace(&table).unwrap();
            assert!(nftables.read(ruleset::TABLE).unwrap().1 == Ok(Some(table)), "lists something else");
        });
    });
}

#[test]
fn a_table_that_is_not_there_is_not_there() {
    isolated(|| {
        let nothing = || assert_eq!(Nftables::open().unwrap().read(ruleset::TABLE).unwrap().1, Ok(None));
        Namespace::new().run(nothing);
    });
}

//! Measures transactions with the table of 1,000 Services with 10 endpoints each, in both address families.
//!
//! `cargo run --release -p netfilter --example large_table` as root. The example runs in its own network namespace, and
//! needs the nft program for the comparison.

#![allow(clippy::unwrap_used, reason = "the example ends if its network namespace cannot be set up")]

use std::fmt::Write;
use std::time::{Duration, Instant};

use netfilter::nft::client::Nftables;
use netfilter::nft::model::{
    Chain, DataType, Element, Set, SetDefinition, Table, TableFamily, TableId, Value, Verdict,
};
use netfilter::nft::{InstalledTable, Transaction, diff};
use netns_testkit::{Namespace, isolation, process};

const SERVICE_COUNT: u16 = 1000;
const ENDPOINTS_PER_SERVICE: u32 = 10;
const ROUND_COUNT: usize = 21;
const TCP: u8 = 6;

fn main() {
    if isolation::isolate_program().is_some() {
        return;
    }
    let namespace = Namespace::new();
    let nftables = namespace.run(|| Nftables::open().unwrap());
    let (build_time, table) = measure(|| build_table(0));
    let elements: usize = table.sets.iter().map(|set| set.elements.len()).sum();
    let build_times = [(); ROUND_COUNT].map(|()| measure(|| build_table(0)).0);
    report(&format!("build the values of {elements} elements"), build_times);
    report(
        "create the table",
        [(); ROUND_COUNT].map(|()| {
            let (time, result) = measure(|| nftables.execute(&Transaction::create(&table)));
            result.unwrap();
            nftables.execute(&Transaction::delete(&table.id)).unwrap();
            time
        }),
    );
    let script = build_script(&table);
    report(
        "create the table with the nft program",
        [(); 5].map(|()| {
            let time = measure(|| namespace.load_nft(&script)).0;
            nftables.execute(&Transaction::delete(&table.id)).unwrap();
            time
        }),
    );
    nftables.execute(&Transaction::create(&table)).unwrap();
    report("read the table", [(); ROUND_COUNT].map(|()| measure(|| nftables.read(&table.id).unwrap()).0));
    let mut installed_table = InstalledTable::from(table);
    let (mut diff_times, mut execute_times) = ([Duration::ZERO; ROUND_COUNT], [Duration::ZERO; ROUND_COUNT]);
    for round in 0..ROUND_COUNT {
        let desired_table = build_table(u8::try_from(round + 1).unwrap());
        let (diff_time, transaction) = measure(|| diff(Some(&installed_table), &desired_table));
        let (execute_time, result) = measure(|| nftables.execute(&transaction));
        result.unwrap();
        (diff_times[round], execute_times[round]) = (diff_time, execute_time);
        installed_table = desired_table.into();
    }
    report("find the difference of one endpoint", diff_times);
    report("change one endpoint in the kernel", execute_times);
    let own_memory = process::anonymous_memory_bytes(rustix::process::getpid()).unwrap();
    let peak = process::peak_memory_bytes(rustix::process::getpid()).unwrap();
    println!("memory with one table: {} KiB, peak of all steps: {} KiB", own_memory / 1024, peak / 1024);
    drop((build_time, installed_table));
}

fn measure<T>(code: impl FnOnce() -> T) -> (Duration, T) {
    let start = Instant::now();
    let result = code();
    (start.elapsed(), result)
}

fn report<const N: usize>(name: &str, mut times: [Duration; N]) {
    times.sort_unstable();
    println!("{name}: median {:?}, minimum {:?}", times[N / 2], times[0]);
}

/// Builds the table. One endpoint of the first Service has the address `changed_endpoint`.
fn build_table(changed_endpoint: u8) -> Table {
    let chain = Chain::regular("n10", Vec::new());
    let mut sets = Vec::new();
    for (suffix, address) in [("4", DataType::IPV4), ("6", DataType::IPV6)] {
        let length = usize::try_from(address.length).unwrap();
        let ip = |bytes: [u8; 4]| {
            let mut ip = vec![0; length];
            ip[..4].copy_from_slice(&bytes);
            ip
        };
        let node = ip([10, 99, 0, 11]);
        let frontend = DataType::concat(&[address, DataType::PROTOCOL, DataType::PORT]);
        let slot = DataType::concat(&[DataType::PROTOCOL, DataType::PORT, DataType::NUMBER]);
        let services = (0..SERVICE_COUNT).map(|service| {
            let port = (10_000 + service).to_be_bytes();
            Element::new(Value::concat(&[&node, &[TCP], &port]).unwrap()).with_verdict(Verdict::goto("n10"))
        });
        let endpoints = (0..SERVICE_COUNT).flat_map(|service| {
            let port = (10_000 + service).to_be_bytes();
            (0..ENDPOINTS_PER_SERVICE).map(move |endpoint| {
                let is_changed = service == 0 && endpoint == 0;
                let [high, low] = service.to_be_bytes();
                let [_, _, _, number] = endpoint.to_be_bytes();
                let mut address = vec![0; length];
                address[..4].copy_from_slice(&[10, 200 + high, low, number]);
                address[length - 1] ^= if is_changed { changed_endpoint } else { 0 };
                let key = Value::concat(&[&[TCP], &port, &endpoint.to_ne_bytes()]).unwrap();
                Element::new(key).with_value(Value::concat(&[&address, &8080_u16.to_be_bytes()]).unwrap())
            })
        });
        let endpoint = DataType::concat(&[address, DataType::PORT]);
        let services = services.collect();
        sets.push(Set::new(format!("services{suffix}"), SetDefinition::verdict_map(frontend), services));
        let endpoints = endpoints.collect();
        sets.push(Set::new(format!("endpoints{suffix}"), SetDefinition::map(slot, endpoint), endpoints));
    }
    Table { sets, chains: vec![chain], ..Table::empty(TableId::new(TableFamily::Inet, "akrobateo")) }
}

/// Writes the table in the file format of the nft program.
fn build_script(table: &Table) -> String {
    let mut script = format!("table {} {{\n chain n10 {{ }}\n", table.id);
    for (suffix, data_type) in [("4", "ipv4_addr"), ("6", "ipv6_addr")] {
        let ip = |bytes: [u8; 4]| {
            let [a, b, c, d] = bytes;
            if suffix == "4" { format!("{a}.{b}.{c}.{d}") } else { format!("{a:x}{b:02x}:{c:x}{d:02x}::") }
        };
        let node = ip([10, 99, 0, 11]);
        let _ = write!(
            script,
            " map services{suffix} {{ type {data_type} . inet_proto . inet_service : verdict; elements = {{ "
        );
        for service in 0..SERVICE_COUNT {
            let _ = write!(script, "{node} . tcp . {} : goto n10, ", 10_000 + service);
        }
        let _ = write!(
            script,
            "}}; }}\n map endpoints{suffix} {{ type inet_proto . inet_service . mark : {data_type} . inet_service; elements = {{ "
        );
        for service in 0..SERVICE_COUNT {
            let [high, low] = service.to_be_bytes();
            for endpoint in 0..ENDPOINTS_PER_SERVICE {
                let address = ip([10, 200 + high, low, u8::try_from(endpoint).unwrap()]);
                let _ = write!(script, "tcp . {} . {endpoint} : {address} . 8080, ", 10_000 + service);
            }
        }
        script.push_str("}; }\n");
    }
    script.push_str("}\n");
    script
}

//! The `bench-operator` program measures the operator's latency and memory on the cluster that `cluster/up` starts.
//! Does I/O.
//!
//! `make bench-operator` runs this program. The program prints measurements, and does not compare them with limits.

mod stopwatch;

use std::time::Duration;

use akrobateo_core::annotations::NODE_SELECTOR;
use e2e::{Failure, Faults, Namespace, dedicated_fault_test_within, ensure_eq, eventually, service};
use stopwatch::Stopwatch;
use tokio::time::Instant;

const ROUND_COUNT: usize = 12;
const TIME_LIMIT: Duration = Duration::from_mins(15);
/// A node selector that matches no node, so that a thousand workloads have no pods.
const SELECTOR_WITHOUT_MATCHING_NODE: &str = "e2e.akrobateo.io/pool=nowhere";

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    dedicated_fault_test_within(TIME_LIMIT, async |namespace, faults| {
        namespace.start_backend().await?;
        let idle_memory = read_memory(faults).await?;
        let mut rounds = Vec::new();
        for _ in 0..ROUND_COUNT {
            rounds.push(measure_round(namespace).await?);
        }
        print_medians(&rounds);
        println!("memory of the operator: resident set size (peak):");
        println!("{idle_memory}  without Services");
        let memory = measure_memory(namespace, faults, 20, None).await?;
        println!("{memory}  with 20 Services of one port on every node");
        let memory = measure_memory(namespace, faults, 1000, Some(SELECTOR_WITHOUT_MATCHING_NODE)).await?;
        println!("{memory}  with 1,000 Services without pods");
        Ok(())
    })
    .await
}

/// The latencies that one round measured.
struct RoundLatencies {
    /// The time from the creation of the Service to the creation of its DaemonSet.
    daemonset_creation: Duration,
    /// The time from the creation of the Service to the readiness of its last proxy.
    proxy_readiness: Duration,
    /// The time from the readiness of the last proxy to the publication of the last address.
    address_publication: Duration,
    /// The time from the creation of the baseline DaemonSet to the readiness of its last pod. The operator does not
    /// manage this DaemonSet.
    baseline_readiness: Duration,
}

fn print_medians(rounds: &[RoundLatencies]) {
    let median = |duration: fn(&RoundLatencies) -> Duration| {
        let mut durations: Vec<_> = rounds.iter().map(duration).collect();
        durations.sort_unstable();
        durations.get(durations.len() / 2).map_or(f64::NAN, Duration::as_secs_f64) * 1000.0
    };
    println!("medians of {} rounds:", rounds.len());
    println!("{:7.0} ms  from the Service to its DaemonSet", median(|round| round.daemonset_creation));
    println!("{:7.0} ms  from the Service to its last ready proxy", median(|round| round.proxy_readiness));
    println!(
        "{:7.0} ms  from a DaemonSet of the same pods, without the operator, to its last ready pod",
        median(|round| round.baseline_readiness)
    );
    println!(
        "{:7.0} ms  from the last ready proxy to its address in the status",
        median(|round| round.address_publication)
    );
}

async fn measure_round(namespace: &Namespace) -> Result<RoundLatencies, Failure> {
    let [port, baseline_port] = namespace.allocate_ports().await?;
    let web = service("web").tcp(port).with_ip_mode_proxy();
    let mut stopwatch = Stopwatch::start(namespace);
    let created_at = Instant::now();
    namespace.apply(&web).await?;
    let times = stopwatch.wait_exposed(web.name()).await?;
    let mut baseline = namespace.get_daemonset(&web).await?;
    namespace.delete_service(&web).await?;
    namespace.wait_cleaned_up(&web).await?;
    stopwatch::convert_to_baseline(&mut baseline, baseline_port);
    let baseline_created_at = Instant::now();
    namespace.create_daemonset(&baseline).await?;
    let baseline_ready_at = stopwatch.wait_baseline_ready().await?;
    namespace.delete_daemonset(&baseline).await?;
    Ok(RoundLatencies {
        daemonset_creation: times.daemonset_created - created_at,
        proxy_readiness: times.proxies_ready - created_at,
        address_publication: times.addresses_published.saturating_duration_since(times.proxies_ready),
        baseline_readiness: baseline_ready_at - baseline_created_at,
    })
}

/// Measures the operator's memory with `service_count` Services, before and after a restart of the operator.
async fn measure_memory(
    namespace: &Namespace,
    faults: &Faults,
    service_count: usize,
    node_selector: Option<&str>,
) -> Result<String, Failure> {
    let ports: [u16; 1000] = namespace.allocate_ports().await?;
    let build_service = |port: u16| {
        let service = service(&format!("web-{port}")).tcp(port);
        match node_selector {
            Some(selector) => service.annotation(NODE_SELECTOR, selector),
            None => service,
        }
    };
    let services: Vec<_> = ports.into_iter().take(service_count).map(build_service).collect();
    for service in &services {
        namespace.apply(service).await?;
    }
    eventually("every Service has a DaemonSet", async || {
        ensure_eq("number of DaemonSets", &namespace.list_all_daemonsets().await?.len(), &service_count)
    })
    .await?;
    namespace.wait_stable().await?;
    // A restarted operator may need less memory, because it did not process the creation of each Service.
    let memory_before_restart = read_memory(faults).await?;
    faults.operator.restart().await?;
    namespace.wait_stable().await?;
    let memory_after_restart = read_memory(faults).await?;
    for service in &services {
        namespace.delete_service(service).await?;
    }
    eventually("all DaemonSets are gone", async || {
        ensure_eq("number of DaemonSets", &namespace.list_all_daemonsets().await?.len(), &0)
    })
    .await?;
    Ok(format!("{memory_before_restart}, restarted {memory_after_restart}"))
}

async fn read_memory(faults: &Faults) -> Result<String, Failure> {
    let status = faults.get_process_status(&faults.operator.wait_ready().await?, "akrobateo").await?;
    let read_field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.map(|value| value.split_whitespace().collect::<Vec<_>>().join(" ")).unwrap_or_default()
    };
    Ok(format!("{} ({})", read_field("VmRSS"), read_field("VmHWM")))
}

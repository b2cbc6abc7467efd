//! The `bench-operator` program: measures the operator's latency and memory on the cluster of `cluster/`. Does I/O.
//!
//! `make bench-operator` runs it. The program prints measurements and does not judge them.

mod stopwatch;

use std::time::Duration;

use akrobateo_core::annotations::NODE_SELECTOR;
use e2e::{Failure, Faults, Namespace, ensure_eq, eventually, fault_test_within, service};
use stopwatch::Stopwatch;
use tokio::time::Instant;

const ROUNDS: usize = 12;
const TIME_LIMIT: Duration = Duration::from_mins(15);
/// A node selector that matches no node, so that a thousand workloads have no pods.
const SELECTOR_WITHOUT_NODES: &str = "e2e.akrobateo.io/pool=nowhere";

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    fault_test_within(TIME_LIMIT, async |namespace, faults| {
        namespace.start_backend().await?;
        let idle = read_memory(faults).await?;
        let mut rounds = Vec::new();
        for _ in 0..ROUNDS {
            rounds.push(measure_round(namespace).await?);
        }
        print_medians(&rounds);
        println!("memory of the operator: resident set size (peak):");
        println!("{idle}  without Services");
        let memory = measure_memory(namespace, faults, 20, None).await?;
        println!("{memory}  with 20 Services of one port on every node");
        let memory = measure_memory(namespace, faults, 1000, Some(SELECTOR_WITHOUT_NODES)).await?;
        println!("{memory}  with 1,000 Services without pods");
        Ok(())
    })
    .await
}

/// The latencies that one round measured.
struct Round {
    /// The time from the creation of the Service to the creation of its DaemonSet.
    daemonset_created: Duration,
    /// The time from the creation of the Service to the readiness of its last proxy.
    proxies_ready: Duration,
    /// The time from the readiness of the last proxy to the publication of the last address.
    addresses_published: Duration,
    /// The time from the creation of a DaemonSet without an operator to the readiness of its last pod.
    baseline_ready: Duration,
}

fn print_medians(rounds: &[Round]) {
    let median = |duration: fn(&Round) -> Duration| {
        let mut durations: Vec<_> = rounds.iter().map(duration).collect();
        durations.sort_unstable();
        durations.get(durations.len() / 2).map_or(f64::NAN, Duration::as_secs_f64) * 1000.0
    };
    println!("medians of {} alternating rounds:", rounds.len());
    println!("{:7.0} ms  from the Service to its DaemonSet", median(|round| round.daemonset_created));
    println!("{:7.0} ms  from the Service to its last ready proxy", median(|round| round.proxies_ready));
    println!(
        "{:7.0} ms  from a DaemonSet of the same pods, without the operator, to its last ready pod",
        median(|round| round.baseline_ready)
    );
    println!(
        "{:7.0} ms  from the last ready proxy to its address in the status",
        median(|round| round.addresses_published)
    );
}

async fn measure_round(namespace: &Namespace) -> Result<Round, Failure> {
    let [port, baseline_port] = namespace.allocate_ports().await?;
    let web = service("web").tcp(port).ip_mode_proxy();
    let mut stopwatch = Stopwatch::start(namespace);
    let created = Instant::now();
    namespace.apply(&web).await?;
    let times = stopwatch.wait_exposed(web.name()).await?;
    let mut baseline = namespace.get_daemonset(&web).await?;
    namespace.delete_service(&web).await?;
    namespace.wait_cleaned_up(&web).await?;
    stopwatch::make_baseline(&mut baseline, baseline_port);
    let baseline_created_at = Instant::now();
    namespace.create_daemonset(&baseline).await?;
    let baseline_ready = stopwatch.wait_baseline_ready().await?;
    namespace.delete_daemonset(&baseline).await?;
    Ok(Round {
        daemonset_created: times.daemonset_created - created,
        proxies_ready: times.proxies_ready - created,
        addresses_published: times.addresses_published.saturating_duration_since(times.proxies_ready),
        baseline_ready: baseline_ready - baseline_created_at,
    })
}

/// Measures the operator's memory with `count` Services, before and after a restart of the operator.
async fn measure_memory(
    namespace: &Namespace,
    faults: &Faults,
    count: usize,
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
    let services: Vec<_> = ports.into_iter().take(count).map(build_service).collect();
    for service in &services {
        namespace.apply(service).await?;
    }
    eventually("every Service has a DaemonSet", async || {
        ensure_eq("number of DaemonSets", &namespace.list_all_daemonsets().await?.len(), &count)
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
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.map(|value| value.split_whitespace().collect::<Vec<_>>().join(" ")).unwrap_or_default()
    };
    Ok(format!("{} ({})", field("VmRSS"), field("VmHWM")))
}

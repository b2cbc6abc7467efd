//! Measures the operator on the cluster: how long it takes beyond what Kubernetes takes, and its memory. Run by
//! `make figures`, not with the tests: it prints, and judges nothing.

mod stopwatch;

use std::time::Duration;

use e2e::{Failure, Faults, Namespace, eventually, fault_test_within, same, service};
use stopwatch::Stopwatch;
use tokio::time::Instant;

const ROUNDS: usize = 12;
const LIMIT: Duration = Duration::from_mins(15);
/// In a pool of no nodes: a thousand workloads, and no pods.
const NOWHERE: &str = "e2e.akrobateo.io/pool=nowhere";

#[tokio::test]
async fn figures() -> Result<(), Failure> {
    fault_test_within(LIMIT, async |namespace, faults| {
        namespace.backend().await?;
        let idle = memory(faults).await?;
        let mut rows = Vec::new();
        for _ in 0..ROUNDS {
            rows.push(round(namespace).await?);
        }
        let median = |of: fn(&Round) -> Duration| {
            let mut all: Vec<_> = rows.iter().map(of).collect();
            all.sort_unstable();
            format!("{:7.0} ms", all[all.len() / 2].as_secs_f64() * 1000.0)
        };
        println!("medians of {ROUNDS} rounds, in turns:");
        println!("{}  from creating a Service to its DaemonSet", median(|round| round.to_workload));
        println!("{}  from creating a Service to its last proxy Ready", median(|round| round.to_ready));
        println!(
            "{}  from creating a bare DaemonSet of the same pods to its last one Ready",
            median(|round| round.bare)
        );
        println!(
            "{}  from the last proxy Ready to its address in the status",
            median(|round| round.to_status)
        );
        println!("memory of the operator (RSS, at most so far):");
        println!("{idle}  before");
        println!(
            "{}  with 20 Services of one port on every node",
            with_services(namespace, faults, 20, None).await?
        );
        println!(
            "{}  with 1,000 Services without pods",
            with_services(namespace, faults, 1000, Some(NOWHERE)).await?
        );
        Ok(())
    })
    .await
}

/// What one round took.
struct Round {
    to_workload: Duration,
    to_ready: Duration,
    to_status: Duration,
    bare: Duration,
}

async fn round(namespace: &Namespace) -> Result<Round, Failure> {
    let [port, bare_port] = namespace.ports().await?;
    let web = service("web").tcp(port).proxy_mode();
    let mut watch = Stopwatch::start(namespace);
    let begin = Instant::now();
    namespace.apply(&web).await?;
    let (workload, ready, published) = watch.service_served(web.name()).await?;
    let mut copy = namespace.daemonset(&web).await?;
    namespace.delete(&web).await?;
    namespace.withdrawn(&web).await?;
    stopwatch::make_bare(&mut copy, bare_port);
    let bare_begin = Instant::now();
    namespace.create_daemonset(&copy).await?;
    let bare_ready = watch.pods_ready().await?;
    namespace.delete_daemonset(&copy).await?;
    Ok(Round {
        to_workload: workload - begin,
        to_ready: ready - begin,
        to_status: published.saturating_duration_since(ready),
        bare: bare_ready - bare_begin,
    })
}

async fn with_services(
    namespace: &Namespace,
    faults: &Faults,
    number: usize,
    selector: Option<&str>,
) -> Result<String, Failure> {
    let ports: [u16; 1000] = namespace.ports().await?;
    let services: Vec<_> = ports[..number]
        .iter()
        .map(|port| {
            let plain = service(&format!("many-{port}")).tcp(*port);
            match selector {
                Some(selector) => plain.annotation(akrobateo_core::annotations::NODE_SELECTOR, selector),
                None => plain,
            }
        })
        .collect();
    for service in &services {
        namespace.apply(service).await?;
    }
    eventually("all Services have their workloads", async || {
        same("workloads", &namespace.all_daemonsets().await?.len(), &number)
    })
    .await?;
    namespace.quiet().await?;
    // Once as it has grown, once as a new operator begins with.
    let grown = memory(faults).await?;
    faults.operator.restart().await?;
    namespace.quiet().await?;
    let fresh = memory(faults).await?;
    for service in &services {
        namespace.delete(service).await?;
    }
    eventually("all workloads are gone", async || {
        same("workloads", &namespace.all_daemonsets().await?.len(), &0)
    })
    .await?;
    Ok(format!("{grown}, restarted {fresh}"))
}

async fn memory(faults: &Faults) -> Result<String, Failure> {
    let status = faults.process_status(&faults.operator.ready().await?, "akrobateo").await?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.map(|value| value.split_whitespace().collect::<Vec<_>>().join(" ")).unwrap_or_default()
    };
    Ok(format!("{} ({})", field("VmRSS"), field("VmHWM")))
}

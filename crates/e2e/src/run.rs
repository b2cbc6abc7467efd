//! One test: its namespace before, and after it the clean-up; before that, on failure, what could tell why.

use std::panic::{AssertUnwindSafe, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use akrobateo_core::labels;
use futures::FutureExt;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Namespace as KubeNamespace, Service};
use kube::api::{DeleteParams, ListParams};
use kube::{Api, ResourceExt};
use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::cluster::Cluster;
use crate::faults::Faults;
use crate::namespace::{Namespace, Run};
use crate::{Failure, diagnostics, eventually, same};

/// No test may take longer, unless it says so.
const LIMIT: Duration = Duration::from_mins(4);

/// Runs a test that disturbs no other.
pub async fn test(body: impl AsyncFnOnce(&Namespace) -> Result<(), Failure>) -> Result<(), Failure> {
    run(Cluster::connect().await?, LIMIT, body, async || Ok(())).await
}

/// Runs a test that breaks things: alone among the tests of its program, and what it broke is mended afterwards.
pub async fn fault_test(
    body: impl AsyncFnOnce(&Namespace, &Faults) -> Result<(), Failure>,
) -> Result<(), Failure> {
    fault_test_within(LIMIT, body).await
}

/// As [`fault_test`], with a limit of its own.
pub async fn fault_test_within(
    limit: Duration,
    body: impl AsyncFnOnce(&Namespace, &Faults) -> Result<(), Failure>,
) -> Result<(), Failure> {
    static ALONE: Mutex<()> = Mutex::const_new(());
    let _alone = ALONE.lock().await;
    let cluster = Cluster::connect().await?;
    let faults = Faults::of(&cluster)?;
    faults.mend().await?;
    run(cluster, limit, async |namespace| body(namespace, &faults).await, async || faults.mend().await).await
}

async fn run(
    cluster: Cluster,
    limit: Duration,
    body: impl AsyncFnOnce(&Namespace) -> Result<(), Failure>,
    mend: impl AsyncFnOnce() -> Result<(), Failure>,
) -> Result<(), Failure> {
    let run = Run::new(cluster);
    let namespace = run.namespace(random_name()).await?;
    let outcome = AssertUnwindSafe(timeout(limit, body(&namespace))).catch_unwind().await;
    let failed = !matches!(outcome, Ok(Ok(Ok(()))));
    if failed {
        if let Ok(Ok(Err(failure))) = &outcome {
            eprintln!("the test has failed: {failure}");
        }
        for namespace in run.namespaces() {
            diagnostics::print(&run.cluster.client, &namespace).await;
        }
    }
    let mended = mend().await;
    let cleaned = clean_up(&run, failed).await;
    match outcome {
        Err(panic) => resume_unwind(panic),
        Ok(Err(_)) => Err(Failure::Unmet(format!("the test did not end within {limit:?}"))),
        Ok(Ok(outcome)) => outcome.and(mended).and(cleaned),
    }
}

/// Removes the test's namespaces, and sees the proxies go. The Services go first: the namespaces themselves take
/// about 10 s.
async fn clean_up(run: &Arc<Run>, failed: bool) -> Result<(), Failure> {
    let namespaces = Api::<KubeNamespace>::all(run.cluster.client.clone());
    for name in run.namespaces() {
        let services: Api<Service> = Api::namespaced(run.cluster.client.clone(), &name);
        services.delete_collection(&DeleteParams::default(), &ListParams::default()).await?;
        match namespaces.delete(&name, &DeleteParams::default()).await {
            // A test may have removed one itself.
            Err(kube::Error::Api(status)) if status.is_not_found() => (),
            outcome => drop(outcome?),
        }
    }
    if failed {
        return Ok(());
    }
    let list = run.namespaces().join(",");
    let theirs = ListParams::default().labels(&format!("{} in ({list})", labels::SERVICE_NAMESPACE));
    let daemonsets = Api::<DaemonSet>::all(run.cluster.client.clone());
    eventually("the DaemonSets go with the Services", async || {
        let left: Vec<_> = daemonsets.list(&theirs).await?.iter().map(ResourceExt::name_any).collect();
        same("DaemonSets", &left, &vec![])
    })
    .await
}

fn random_name() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let now = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |elapsed| elapsed.subsec_nanos());
    let (process, count) = (std::process::id() & 0xffff, COUNT.fetch_add(1, Ordering::Relaxed));
    format!("e2e-{process:04x}{now:08x}{count:02x}")
}

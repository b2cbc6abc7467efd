//! Runs one test: creates its namespace, prints diagnostics if it fails, and cleans up. Does I/O.

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
use crate::delete::delete_if_exists;
use crate::diagnostics;
use crate::failure::{Failure, ensure_eq};
use crate::faults::Faults;
use crate::mode::TestMode;
use crate::namespace::{Namespace, TestRun};
use crate::polling::eventually;
use crate::service::ServiceBuilder;

/// The time limit of a test.
const TIME_LIMIT: Duration = Duration::from_mins(4);

/// Runs a test first in shared mode and then in dedicated mode. The test can run at the same time as other tests.
pub async fn test(body: impl AsyncFn(&Namespace) -> Result<(), Failure>) -> Result<(), Failure> {
    for mode in TestMode::ALL {
        test_in_mode(mode, &body).await?;
    }
    Ok(())
}

/// Runs a [`test`] only in shared mode.
pub async fn test_in_shared_mode(
    body: impl AsyncFn(&Namespace) -> Result<(), Failure>,
) -> Result<(), Failure> {
    test_in_mode(TestMode::Shared, body).await
}

/// Runs a [`test`] only in dedicated mode.
pub async fn test_in_dedicated_mode(
    body: impl AsyncFn(&Namespace) -> Result<(), Failure>,
) -> Result<(), Failure> {
    test_in_mode(TestMode::Dedicated, body).await
}

async fn test_in_mode(
    mode: TestMode,
    body: impl AsyncFnOnce(&Namespace) -> Result<(), Failure>,
) -> Result<(), Failure> {
    run(Cluster::connect().await?, mode, TIME_LIMIT, body, async || Ok(())).await
}

/// Runs a [`test`] with a ready backend and an exposed Service. `build_service` returns the Service for a free port.
pub async fn exposed_service_test(
    build_service: impl Fn(u16) -> ServiceBuilder,
    body: impl AsyncFn(&Namespace, ServiceBuilder) -> Result<(), Failure>,
) -> Result<(), Failure> {
    test(async |namespace| body(namespace, expose_service(namespace, &build_service).await?).await).await
}

/// Runs an [`exposed_service_test`] only in dedicated mode.
pub async fn exposed_service_test_in_dedicated_mode(
    build_service: impl Fn(u16) -> ServiceBuilder,
    body: impl AsyncFn(&Namespace, ServiceBuilder) -> Result<(), Failure>,
) -> Result<(), Failure> {
    test_in_dedicated_mode(async |namespace| {
        body(namespace, expose_service(namespace, &build_service).await?).await
    })
    .await
}

async fn expose_service(
    namespace: &Namespace,
    build_service: impl Fn(u16) -> ServiceBuilder,
) -> Result<ServiceBuilder, Failure> {
    namespace.start_backend().await?;
    let [port] = namespace.allocate_ports().await?;
    let service = build_service(port);
    namespace.expose(&service).await?;
    Ok(service)
}

/// Runs a test that injects faults, first in shared mode and then in dedicated mode. No other fault test of the same
/// process runs at the same time. The cluster is restored afterwards.
pub async fn fault_test(
    body: impl AsyncFn(&Namespace, &Faults) -> Result<(), Failure>,
) -> Result<(), Failure> {
    for mode in TestMode::ALL {
        fault_test_in_mode(mode, TIME_LIMIT, &body).await?;
    }
    Ok(())
}

/// Runs a [`fault_test`] only in shared mode.
pub async fn fault_test_in_shared_mode(
    body: impl AsyncFn(&Namespace, &Faults) -> Result<(), Failure>,
) -> Result<(), Failure> {
    fault_test_in_shared_mode_within(TIME_LIMIT, body).await
}

/// Runs a [`fault_test`] only in shared mode, with this time limit.
pub async fn fault_test_in_shared_mode_within(
    time_limit: Duration,
    body: impl AsyncFn(&Namespace, &Faults) -> Result<(), Failure>,
) -> Result<(), Failure> {
    fault_test_in_mode(TestMode::Shared, time_limit, body).await
}

/// Runs a [`fault_test`] only in dedicated mode.
pub async fn fault_test_in_dedicated_mode(
    body: impl AsyncFn(&Namespace, &Faults) -> Result<(), Failure>,
) -> Result<(), Failure> {
    fault_test_in_dedicated_mode_within(TIME_LIMIT, body).await
}

/// Runs a [`fault_test`] only in dedicated mode, with this time limit.
pub async fn fault_test_in_dedicated_mode_within(
    time_limit: Duration,
    body: impl AsyncFn(&Namespace, &Faults) -> Result<(), Failure>,
) -> Result<(), Failure> {
    fault_test_in_mode(TestMode::Dedicated, time_limit, body).await
}

async fn fault_test_in_mode(
    mode: TestMode,
    time_limit: Duration,
    body: impl AsyncFnOnce(&Namespace, &Faults) -> Result<(), Failure>,
) -> Result<(), Failure> {
    static FAULT_TEST_LOCK: Mutex<()> = Mutex::const_new(());
    let _guard = FAULT_TEST_LOCK.lock().await;
    let cluster = Cluster::connect().await?;
    let faults = Faults::new(&cluster)?;
    faults.undo_all_faults().await?;
    // The futures of some tests are too large for the stack.
    Box::pin(run(
        cluster,
        mode,
        time_limit,
        async |namespace| {
            let result = body(namespace, &faults).await;
            // Without the API server, the test can print no diagnostics.
            if result.is_err()
                && let Err(failure) = faults.resume_api_server().await
            {
                eprintln!("cannot resume the API server: {failure}");
            }
            result
        },
        async || faults.undo_all_faults().await,
    ))
    .await
}

async fn run(
    cluster: Cluster,
    mode: TestMode,
    time_limit: Duration,
    body: impl AsyncFnOnce(&Namespace) -> Result<(), Failure>,
    restore_cluster: impl AsyncFnOnce() -> Result<(), Failure>,
) -> Result<(), Failure> {
    let test_run = TestRun::new(cluster, mode);
    let namespace = test_run.create_namespace(create_unique_namespace_name()).await?;
    let result = AssertUnwindSafe(timeout(time_limit, body(&namespace))).catch_unwind().await;
    let has_failed = !matches!(result, Ok(Ok(Ok(()))));
    if has_failed {
        eprintln!("the test has failed in {mode}");
        if let Ok(Ok(Err(failure))) = &result {
            eprintln!("{failure}");
        }
        for namespace in test_run.namespace_names() {
            diagnostics::print_diagnostics(&test_run.cluster.client, &namespace).await;
        }
    }
    // The cluster is restored and cleaned up even if the test has failed. The function returns the first failure.
    let restore_result = restore_cluster().await;
    let clean_up_result = clean_up(&test_run, has_failed).await;
    match result {
        Err(panic) => resume_unwind(panic),
        Ok(Err(_)) => Err(Failure::UnexpectedState(format!("the test did not end within {time_limit:?}"))),
        Ok(Ok(result)) => result.and(restore_result).and(clean_up_result),
    }
}

/// Deletes the test's namespaces, and waits until their proxies are gone. Deletes the Services first, because
/// the deletion of a namespace takes about 10 s.
async fn clean_up(test_run: &Arc<TestRun>, has_failed: bool) -> Result<(), Failure> {
    let namespaces = Api::<KubeNamespace>::all(test_run.cluster.client.clone());
    for name in test_run.namespace_names() {
        let services: Api<Service> = Api::namespaced(test_run.cluster.client.clone(), &name);
        services.delete_collection(&DeleteParams::default(), &ListParams::default()).await?;
        // The namespace may not exist, because some tests delete a namespace themselves.
        delete_if_exists(&namespaces, &name, &DeleteParams::default()).await?;
    }
    if has_failed {
        return Ok(());
    }
    let names = test_run.namespace_names().join(",");
    let proxies = ListParams::default().labels(&format!("{} in ({names})", labels::SERVICE_NAMESPACE));
    let daemonsets = Api::<DaemonSet>::all(test_run.cluster.client.clone());
    eventually("the DaemonSets of the deleted Services are gone", async || {
        let remaining_daemonsets: Vec<_> =
            daemonsets.list(&proxies).await?.iter().map(ResourceExt::name_any).collect();
        ensure_eq("DaemonSets", &remaining_daemonsets, &vec![])
    })
    .await
}

fn create_unique_namespace_name() -> String {
    static NEXT_NAME_NUMBER: AtomicU32 = AtomicU32::new(0);
    let now = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |elapsed| elapsed.subsec_nanos());
    let (process, number) = (std::process::id() & 0xffff, NEXT_NAME_NUMBER.fetch_add(1, Ordering::Relaxed));
    format!("e2e-{process:04x}{now:08x}{number:02x}")
}

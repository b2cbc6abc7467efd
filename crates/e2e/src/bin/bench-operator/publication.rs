//! Measures the time from the creation of a Service to the publication of its last address. Does I/O.

use std::time::Duration;

use e2e::{Failure, Namespace, service};
use futures::StreamExt;
use k8s_openapi::api::core::v1::Service;
use kube::runtime::watcher::Config;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, ResourceExt};
use tokio::time::Instant;

const ROUND_COUNT: usize = 15;

/// Returns the durations of all rounds.
pub(crate) async fn measure_publications(namespace: &Namespace) -> Result<Vec<Duration>, Failure> {
    let node_count = namespace.cluster().list_nodes().await?.len();
    // A watch records the time, because polling would distort the measurement.
    let api: Api<Service> = Api::namespaced(namespace.cluster().client.clone(), namespace.name());
    let mut services = Box::pin(watcher(api, Config::default()).default_backoff().applied_objects());
    let mut durations = Vec::new();
    for round in 0..ROUND_COUNT {
        let [port] = namespace.allocate_ports().await?;
        let web = service(&format!("publication-{round}")).tcp(port);
        let created_at = Instant::now();
        namespace.apply(&web).await?;
        loop {
            let service = services.next().await.and_then(Result::ok);
            if service
                .is_some_and(|it| it.name_any() == web.name() && count_published_addresses(&it) == node_count)
            {
                break;
            }
        }
        durations.push(created_at.elapsed());
        namespace.delete_service(&web).await?;
        namespace.wait_cleaned_up(&web).await?;
    }
    Ok(durations)
}

fn count_published_addresses(service: &Service) -> usize {
    let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    status.and_then(|status| status.ingress.as_ref()).map_or(0, Vec::len)
}

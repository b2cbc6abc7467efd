//! The API server throttles the operator or does not answer. Traffic continues, and the operator applies all changes
//! when the API server answers again.

use std::time::Duration;

use e2e::{Failure, audit, consistently, ensure, ensure_eq, eventually, fault_test, service};
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::Pod;

/// The duration of the outage. The outage is longer than the lease duration, the request timeout, and the node timeout.
const OUTAGE_DURATION: Duration = Duration::from_secs(70);

#[tokio::test]
async fn throttled_operator_applies_every_change() -> Result<(), Failure> {
    fault_test(async |namespace, faults| {
        namespace.start_backend().await?;
        let [port, added_port, other_ports @ ..]: [u16; 22] = namespace.allocate_ports().await?;
        let web = service("web").tcp(port).with_ip_mode_proxy();
        namespace.expose(&web).await?;
        let operator = faults.operator.wait_ready().await?;
        faults.throttle_operator().await?;
        // The operator must write many objects at the same time. The node selectors of these Services match no node, so no
        // pods start.
        let build_service = |port: &u16| service(&format!("web-{port}")).tcp(*port).on_nodes(&["nowhere"]);
        let other_services: Vec<_> = other_ports.iter().map(build_service).collect();
        let web = web.udp(added_port);
        try_join_all(other_services.iter().chain([&web]).map(|service| namespace.apply(service))).await?;
        eventually("the API server has rejected a write of the operator", async || {
            let requests = audit::requests_from_pod(&operator)?.into_iter();
            let rejected_requests: Vec<_> = requests.filter(|request| request.status_code == 429).collect();
            ensure(rejected_requests.iter().any(|request| request.verb == "patch"), || {
                format!("the requests with status 429 are {rejected_requests:?}")
            })
        })
        .await?;
        faults.unthrottle_operator().await?;
        namespace.wait_exposed(&web).await?;
        for other_service in &other_services {
            namespace.wait_condition(other_service, "NoNodes", &[]).await?;
        }
        ensure_eq(
            "restarts of the operator",
            &restart_count(&faults.operator.wait_ready().await?),
            &restart_count(&operator),
        )
    })
    .await
}

#[tokio::test]
async fn api_server_outage_interrupts_no_traffic_and_loses_no_change() -> Result<(), Failure> {
    fault_test(async |namespace, faults| {
        namespace.start_backend().await?;
        let [port, added_port, new_port] = namespace.allocate_ports().await?;
        let web = service("web").tcp(port).udp(port).with_ip_mode_proxy();
        let replies = namespace.expose(&web).await?;
        let targets: Vec<_> = replies.iter().map(|reply| reply.target).collect();
        let operator_before = faults.operator.wait_ready().await?;

        faults.pause_api_server().await?;
        consistently(OUTAGE_DURATION, "every target answers", async || {
            let replies = namespace.cluster().send_requests(&targets).await?;
            let failed_replies: Vec<_> = replies.iter().filter(|reply| reply.result.is_err()).collect();
            ensure(failed_replies.is_empty(), || format!("these targets did not answer: {failed_replies:?}"))
        })
        .await?;
        faults.resume_api_server().await?;

        let (web, new_service) = (web.tcp(added_port), service("new").tcp(new_port).with_ip_mode_proxy());
        eventually("the API server answers", async || namespace.apply(&web).await.map(drop)).await?;
        namespace.apply(&new_service).await?;
        let wait_changes_applied = async {
            namespace.wait_exposed(&new_service).await?;
            namespace.wait_exposed(&web).await
        };
        let ensure_addresses_stay = async {
            loop {
                let addresses = namespace.published_addresses(&web).await?;
                ensure(!addresses.is_empty(), || "the status of Service web lost its addresses".to_owned())?;
            }
        };
        tokio::select! {
            result = wait_changes_applied => drop(result?),
            failure = ensure_addresses_stay => return failure,
        }
        let operator_after = faults.operator.wait_ready().await?;
        ensure_eq("pod of the operator", &operator_after.metadata.name, &operator_before.metadata.name)?;
        ensure_eq(
            "restarts of the operator",
            &restart_count(&operator_after),
            &restart_count(&operator_before),
        )
    })
    .await
}

#[tokio::test]
async fn operator_that_starts_during_an_outage_serves_after_the_outage() -> Result<(), Failure> {
    fault_test(async |namespace, faults| {
        namespace.start_backend().await?;
        let [port] = namespace.allocate_ports().await?;
        let web = service("web").tcp(port).with_ip_mode_proxy();
        let operator_before = faults.operator.wait_ready().await?;
        namespace.apply(&web).await?;
        faults.pause_api_server().await?;
        faults.kill_container(&operator_before).await?;
        eventually("a request of the new operator process has timed out", async || {
            let metrics = faults.get_metrics(&operator_before).await?;
            ensure(metrics.contains(r#"result="timed_out""#), || metrics)
        })
        .await?;
        faults.resume_api_server().await?;
        namespace.wait_exposed(&web).await?;
        let operator_after = faults.operator.wait_ready().await?;
        ensure_eq(
            "restarts of the operator",
            &restart_count(&operator_after),
            &(restart_count(&operator_before) + 1),
        )
    })
    .await
}

fn restart_count(pod: &Pod) -> i32 {
    let statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    statuses.map(|status| status.restart_count).sum()
}

//! The API server throttles the operator or does not answer. Traffic continues, and the operator applies all changes
//! when the API server answers again.

use e2e::{
    Failure, audit, ensure, ensure_eq, eventually, fault_test_in_dedicated_mode, fault_test_in_shared_mode,
    restart_count, service,
};
use futures::future::try_join_all;

#[tokio::test]
async fn throttled_operator_applies_every_change() -> Result<(), Failure> {
    fault_test_in_dedicated_mode(async |namespace, faults| {
        namespace.start_backend().await?;
        let [port, added_port, other_ports @ ..]: [u16; 22] = namespace.allocate_ports().await?;
        let web = service("web").tcp(port).with_ip_mode_proxy();
        namespace.expose(&web).await?;
        let operator = faults.operator.wait_ready().await?;
        faults.throttle_operator().await?;
        // The operator must write many objects at the same time. The node selectors of these Services match no node, so
        // no pods start.
        let build_service = |port: &u16| service(&format!("web-{port}")).tcp(*port).on_nodes(&["nowhere"]);
        let other_services: Vec<_> = other_ports.iter().map(build_service).collect();
        let web = web.udp(added_port);
        try_join_all(other_services.iter().chain([&web]).map(|service| namespace.apply(service))).await?;
        eventually("the API server has rejected a write of the operator", async || {
            let requests = audit::read_requests_from_pod(&operator)?.into_iter();
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
async fn operator_that_starts_during_an_outage_exposes_services_after_the_outage() -> Result<(), Failure> {
    fault_test_in_shared_mode(async |namespace, faults| {
        namespace.start_backend().await?;
        let [port] = namespace.allocate_ports().await?;
        let web = service("web").tcp(port).with_ip_mode_proxy();
        let operator_before = faults.operator.wait_ready().await?;
        namespace.apply(&web).await?;
        faults.pause_api_server().await?;
        faults.kill_container(&operator_before).await?;
        eventually("a request of the new operator process has timed out", async || {
            let metrics = faults.get_operator_metrics(&operator_before).await?;
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

//! The API server throttles, or hangs: what was set up goes on, and what was asked for is done later.

use std::time::Duration;

use e2e::{Failure, audit, ensure, eventually, fault_test, same, service, stays};
use futures::future::try_join_all;

/// Several times the operator's Lease, its calls' deadline, and the time until nodes count as lost.
const OUTAGE: Duration = Duration::from_secs(70);

#[tokio::test]
async fn an_api_server_that_throttles_delays_changes_and_loses_none() -> Result<(), Failure> {
    fault_test(async |namespace, faults| {
        namespace.backend().await?;
        let [kept, more, ports @ ..]: [u16; 22] = namespace.ports().await?;
        let web = service("web").tcp(kept).proxy_mode();
        namespace.apply(&web).await?;
        namespace.exposed(&web).await?;
        let operator = faults.operator.ready().await?;
        faults.throttle_operator().await?;
        // Enough at once that one seat is not enough; on no node, for it is the writes that matter.
        let crowd = ports.iter().map(|&port| service(&format!("crowd-{port}")).tcp(port).on(&["nowhere"]));
        let crowd: Vec<_> = crowd.collect();
        let web = web.udp(more);
        try_join_all(crowd.iter().chain([&web]).map(|service| namespace.apply(service))).await?;
        eventually("the operator was told to wait with its writes", async || {
            let refused = audit::requests_of(&operator)?.into_iter().filter(|request| request.code == 429);
            let refused: Vec<_> = refused.map(|request| (request.verb, request.resource)).collect();
            ensure(refused.iter().any(|(verb, _)| verb == "patch"), || format!("{refused:?}"))
        })
        .await?;
        faults.release_operator().await?;
        namespace.exposed(&web).await?;
        eventually("every Service has its proxies", async || {
            same("DaemonSets", &namespace.all_daemonsets().await?.len(), &(crowd.len() + 1))
        })
        .await?;
        same("its restarts", &restarts(&faults.operator.ready().await?), &restarts(&operator))
    })
    .await
}

#[tokio::test]
async fn an_api_server_that_hangs_for_more_than_a_minute_stops_no_traffic_and_costs_no_change_and_no_address()
-> Result<(), Failure> {
    fault_test(async |namespace, faults| {
        namespace.backend().await?;
        let [port, more, another] = namespace.ports().await?;
        let web = service("web").tcp(port).udp(port).proxy_mode();
        namespace.apply(&web).await?;
        let replies = namespace.exposed(&web).await?;
        let targets: Vec<_> = replies.iter().map(|reply| reply.target).collect();
        let operator = faults.operator.ready().await?;

        faults.pause_api_server().await?;
        stays(OUTAGE, "that everything answers", async || {
            let replies = namespace.cluster().ask(&targets).await?;
            let silent: Vec<_> = replies.iter().filter(|reply| reply.outcome.is_err()).collect();
            ensure(silent.is_empty(), || format!("{silent:?}"))
        })
        .await?;
        faults.resume_api_server().await?;

        let (web, new) = (web.tcp(more), service("new").tcp(another).proxy_mode());
        eventually("the API server answers", async || namespace.apply(&web).await.map(drop)).await?;
        namespace.apply(&new).await?;
        let settled = async {
            namespace.exposed(&new).await?;
            namespace.exposed(&web).await
        };
        let looking = async {
            loop {
                let published = namespace.published(&web).await?;
                ensure(!published.is_empty(), || "its status was emptied".to_owned())?;
            }
        };
        tokio::select! {
            done = settled => drop(done?),
            seen = looking => return seen,
        }
        let after = faults.operator.ready().await?;
        same("the operator's pod", &after.metadata.name, &operator.metadata.name)?;
        same("its restarts", &restarts(&after), &restarts(&operator))
    })
    .await
}

#[tokio::test]
async fn an_operator_that_starts_while_the_api_server_hangs_works_once_it_answers() -> Result<(), Failure> {
    fault_test(async |namespace, faults| {
        namespace.backend().await?;
        let [port] = namespace.ports().await?;
        let web = service("web").tcp(port).proxy_mode();
        let operator = faults.operator.ready().await?;
        namespace.apply(&web).await?;
        faults.pause_api_server().await?;
        faults.kill_container(&operator).await?;
        eventually("the operator has given its first call up", async || {
            let metrics = faults.metrics(&operator).await?;
            ensure(metrics.contains(r#"result="timed_out""#), || metrics)
        })
        .await?;
        faults.resume_api_server().await?;
        namespace.exposed(&web).await?;
        same("its restarts", &restarts(&faults.operator.ready().await?), &(restarts(&operator) + 1))
    })
    .await
}

fn restarts(pod: &k8s_openapi::api::core::v1::Pod) -> i32 {
    let statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    statuses.map(|status| status.restart_count).sum()
}

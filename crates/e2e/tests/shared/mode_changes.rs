//! A Service that changes between dedicated mode and shared mode.

use e2e::{Failure, ensure_answers_during, ensure_eq, eventually, service, test_in_shared_mode};

#[tokio::test]
async fn service_moves_between_modes_without_a_lost_connection() -> Result<(), Failure> {
    test_in_shared_mode(async |namespace| {
        namespace.start_backend().await?;
        let [port] = namespace.allocate_ports().await?;
        let shared_service = || service("web").tcp(port).with_ip_mode_proxy();
        let dedicated_service = || shared_service().with_dedicated_mode();
        let replies = namespace.expose(&dedicated_service()).await?;
        let targets: Vec<_> = replies.iter().map(|reply| reply.target).collect();
        let cluster = namespace.cluster();
        ensure_answers_during(cluster, &targets, async || {
            namespace.apply(&shared_service()).await?;
            eventually("the Service has no proxies", async || {
                ensure_eq("DaemonSets", &namespace.list_daemonsets(&dedicated_service()).await?.len(), &0)
            })
            .await
        })
        .await?;
        ensure_answers_during(cluster, &targets, async || {
            namespace.apply(&dedicated_service()).await?;
            namespace.wait_rolled_out(&dedicated_service()).await?;
            namespace.wait_exposed(&dedicated_service()).await
        })
        .await?;
        ensure_eq("DaemonSets", &namespace.list_daemonsets(&dedicated_service()).await?.len(), &1)
    })
    .await
}

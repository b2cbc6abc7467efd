//! Proxies that die.

use std::net::SocketAddr;
use std::time::Duration;

use e2e::{Failure, ensure, eventually, fault_test, same, service, within};
use kube::ResourceExt;

#[tokio::test]
async fn a_proxy_that_is_killed_starts_again_and_breaks_no_connection() -> Result<(), Failure> {
    fault_test(async |namespace, faults| {
        namespace.backend().await?;
        let [port] = namespace.ports().await?;
        let web = service("web").tcp(port).udp(port).proxy_mode();
        namespace.apply(&web).await?;
        namespace.exposed(&web).await?;
        let victim = namespace.proxy_pods(&web).await?.remove(0);
        let node = victim.spec.as_ref().and_then(|pod| pod.node_name.clone()).unwrap_or_default();
        let nodes = namespace.cluster().nodes().await?;
        let address = nodes.iter().find(|other| other.name == node).expect("its node").addresses[0];
        let mut session = namespace.cluster().session(SocketAddr::new(address, port)).await?;
        session.says("before").await?;

        faults.kill_container(&victim).await?;
        session.says("while it is dead").await?;
        eventually("its container has been started again", async || {
            let pods = namespace.proxy_pods(&web).await?;
            let pod = pods.iter().find(|pod| pod.uid() == victim.uid());
            let status = pod.and_then(|pod| pod.status.as_ref()?.container_statuses.as_ref()?.first());
            let again = status.is_some_and(|container| container.restart_count == 1 && container.ready);
            ensure(again, || format!("{status:?}"))
        })
        .await?;
        let replies = namespace.exposed(&web).await?;
        namespace.came_through_proxies(&web, &replies).await?;
        session.says("after").await
    })
    .await
}

#[tokio::test]
async fn rules_that_somebody_flushes_are_back_before_a_client_notices() -> Result<(), Failure> {
    fault_test(async |namespace, faults| {
        namespace.backend().await?;
        let [port] = namespace.ports().await?;
        let nodes = namespace.cluster().nodes().await?;
        let web =
            service("web").families(&["IPv4", "IPv6"]).tcp(port).udp(port).proxy_mode().on(&[&nodes[0].name]);
        namespace.apply(&web).await?;
        namespace.exposed_on(&web, &nodes[..1]).await?;
        let proxy = namespace.proxy_pods(&web).await?.remove(0);
        faults.flush_rules(&proxy).await?;
        within(Duration::from_secs(5), "the proxy has put its rules back", async || {
            let metrics = namespace.proxy_metrics(&web).await?;
            let restored =
                metrics.lines().find_map(|line| line.strip_prefix("akrobateo_lb_rules_restored_total "));
            ensure(restored == Some("1"), || metrics.clone())
        })
        .await?;
        let replies = namespace.exposed_on(&web, &nodes[..1]).await?;
        namespace.came_through_proxies(&web, &replies).await?;
        let same_pod = namespace.proxy_pods(&web).await?.remove(0);
        same("the proxy", &same_pod.uid(), &proxy.uid())
    })
    .await
}

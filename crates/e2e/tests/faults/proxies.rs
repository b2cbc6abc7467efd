//! Proxies that die.

use std::net::SocketAddr;

use e2e::{Failure, ensure, eventually, fault_test, service};
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

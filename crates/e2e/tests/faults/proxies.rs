//! Proxies that die.

use std::net::SocketAddr;
use std::time::Duration;

use e2e::{Failure, ensure, eventually, fault_test, same, service, within};
use kube::ResourceExt;

#[tokio::test]
async fn a_proxy_that_is_killed_starts_again_doubles_no_rule_and_breaks_no_connection() -> Result<(), Failure>
{
    fault_test(async |namespace, faults| {
        namespace.backend().await?;
        let [port] = namespace.ports().await?;
        let web = service("web").tcp(port).udp(port).proxy_mode();
        let nodes = namespace.cluster().nodes().await?;
        let applied = namespace.apply(&web).await?;
        for node in &nodes {
            faults.kube_proxy_knows(&node.name, &applied).await?;
        }
        namespace.exposed(&web).await?;
        let victim = namespace.proxy_pods(&web).await?.remove(0);
        let node = victim.spec.as_ref().and_then(|pod| pod.node_name.clone()).unwrap_or_default();
        let address = nodes.iter().find(|other| other.name == node).expect("its node").addresses[0];
        let mut session = namespace.cluster().sessions(SocketAddr::new(address, port), 1_000).await?;
        session.says("before").await?;
        let rules = faults.rules(&victim).await?;

        faults.kill_container(&victim).await?;
        session.says("while it is dead").await?;
        let again = eventually("its container has been started again", async || {
            let pods = namespace.proxy_pods(&web).await?;
            let pod = pods.into_iter().find(|pod| pod.uid() == victim.uid());
            let pod = pod.ok_or_else(|| Failure::Unmet("the pod is gone".to_owned()))?;
            let status = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref()?.first());
            let again = status.is_some_and(|container| container.restart_count == 1 && container.ready);
            ensure(again, || format!("{status:?}"))?;
            Ok(pod)
        })
        .await?;
        same("the rules", &faults.rules(&again).await?, &rules)?;
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

#[tokio::test]
async fn a_proxy_whose_source_ports_are_used_up_says_so_by_an_event_and_stays_ready() -> Result<(), Failure> {
    fault_test(async |namespace, faults| {
        namespace.backend().await?;
        let [port] = namespace.ports().await?;
        let nodes = namespace.cluster().nodes().await?;
        let dns = service("dns").udp(port).proxy_mode().on(&[&nodes[0].name]);
        namespace.apply(&dns).await?;
        let host = namespace.exposed_on(&dns, &nodes[..1]).await?[0].target.host;
        let proxy = namespace.proxy_pods(&dns).await?.remove(0);
        // One address can take all source ports that the proxy has towards its target; a second one finds none left.
        within(Duration::from_mins(2), "the kubelet has told what the proxy warns of", async || {
            namespace.cluster().flood((host, port).into()).await?;
            faults.flood(&nodes[1].name, (host, port).into()).await?;
            let events = namespace.events_about(&proxy).await?;
            let warning = events.iter().find(|event| event.reason.as_deref() == Some("ProbeWarning"));
            let note = warning.and_then(|event| event.note.clone()).unwrap_or_default();
            ensure(note.contains("new connections"), || format!("{events:?}"))
        })
        .await?;
        namespace.published_for(&dns, &nodes[..1]).await.map(drop)
    })
    .await
}

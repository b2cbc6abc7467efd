//! Proxies that crash, lose their rules, or run out of source ports.

use std::net::SocketAddr;
use std::time::Duration;

use e2e::{Failure, ensure, ensure_eq, eventually, eventually_within, fault_test_in_dedicated_mode, service};
use kube::ResourceExt;

#[tokio::test]
async fn killed_proxy_restarts_with_the_same_rules_and_interrupts_no_connection() -> Result<(), Failure> {
    fault_test_in_dedicated_mode(async |namespace, faults| {
        namespace.start_backend().await?;
        let [port] = namespace.allocate_ports().await?;
        let web = service("web").tcp(port).udp(port).with_ip_mode_proxy();
        let nodes = namespace.cluster().list_nodes().await?;
        let applied_service = namespace.apply(&web).await?;
        for node in &nodes {
            faults.wait_kube_proxy_synced(&node.name, &applied_service).await?;
        }
        namespace.wait_exposed(&web).await?;
        let proxy = namespace.list_proxy_pods(&web).await?.remove(0);
        let node_name = proxy.spec.as_ref().and_then(|pod| pod.node_name.clone()).unwrap_or_default();
        let node = nodes.iter().find(|node| node.name == node_name).expect("the pod has a node");
        let server = SocketAddr::new(node.addresses[0], port);
        let mut connections = namespace.cluster().open_connections(server, 1_000).await?;
        connections.expect_echo("before the kill").await?;
        let rules = faults.list_nftables_rules(&proxy).await?;

        faults.kill_container(&proxy).await?;
        connections.expect_echo("while the container restarts").await?;
        let restarted_pod = eventually("the container has restarted", async || {
            let pods = namespace.list_proxy_pods(&web).await?;
            let pod = pods.into_iter().find(|pod| pod.uid() == proxy.uid());
            let pod =
                pod.ok_or_else(|| Failure::UnexpectedState(format!("the pod {} is gone", proxy.name_any())))?;
            let status = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref()?.first());
            let is_restarted = status.is_some_and(|status| status.restart_count == 1 && status.ready);
            ensure(is_restarted, || format!("the status of the container is {status:?}"))?;
            Ok(pod)
        })
        .await?;
        ensure_eq("nftables rules", &faults.list_nftables_rules(&restarted_pod).await?, &rules)?;
        let replies = namespace.wait_exposed(&web).await?;
        namespace.ensure_answers_through_proxies(&web, &replies).await?;
        connections.expect_echo("after the restart").await
    })
    .await
}

#[tokio::test]
async fn proxy_restores_flushed_rules_within_five_seconds() -> Result<(), Failure> {
    fault_test_in_dedicated_mode(async |namespace, faults| {
        namespace.start_backend().await?;
        let [port] = namespace.allocate_ports().await?;
        let nodes = namespace.cluster().list_nodes().await?;
        let web = service("web").families(&["IPv4", "IPv6"]).tcp(port).udp(port).with_ip_mode_proxy();
        let web = web.on_nodes(&[&nodes[0].name]);
        namespace.expose_on(&web, &nodes[..1]).await?;
        let proxy = namespace.list_proxy_pods(&web).await?.remove(0);
        faults.flush_nftables_rules(&proxy).await?;
        eventually_within(Duration::from_secs(5), "the proxy has restored its rules", async || {
            let metrics = namespace.get_proxy_metrics(&web).await?;
            let restored_count =
                metrics.lines().find_map(|line| line.strip_prefix("akrobateo_lb_rules_restored_total "));
            ensure(restored_count == Some("1"), || metrics.clone())
        })
        .await?;
        let replies = namespace.wait_exposed_on(&web, &nodes[..1]).await?;
        namespace.ensure_answers_through_proxies(&web, &replies).await?;
        let current_proxy = namespace.list_proxy_pods(&web).await?.remove(0);
        ensure_eq("UID of the proxy pod", &current_proxy.uid(), &proxy.uid())
    })
    .await
}

#[tokio::test]
async fn proxy_without_free_source_ports_emits_an_event_and_stays_ready() -> Result<(), Failure> {
    fault_test_in_dedicated_mode(async |namespace, faults| {
        namespace.start_backend().await?;
        let [port] = namespace.allocate_ports().await?;
        let nodes = namespace.cluster().list_nodes().await?;
        let dns = service("dns").udp(port).with_ip_mode_proxy().on_nodes(&[&nodes[0].name]);
        let host = namespace.expose_on(&dns, &nodes[..1]).await?[0].target.host;
        let proxy = namespace.list_proxy_pods(&dns).await?.remove(0);
        // The first client uses all source ports of the proxy, so no source port is free for the second client.
        eventually_within(
            Duration::from_mins(2),
            "the kubelet has emitted the proxy's warning",
            async || {
                namespace.cluster().flood_udp((host, port).into()).await?;
                faults.flood_udp_from_node(&nodes[1].name, (host, port).into()).await?;
                let events = namespace.list_events_about(&proxy).await?;
                let warning = events.iter().find(|event| event.reason.as_deref() == Some("ProbeWarning"));
                let note = warning.and_then(|event| event.note.clone()).unwrap_or_default();
                ensure(note.contains("new connections"), || format!("the events of the pod are {events:?}"))
            },
        )
        .await?;
        namespace.wait_published(&dns, &nodes[..1]).await.map(drop)
    })
    .await
}

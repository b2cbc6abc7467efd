//! Changes of a Service: a change rolls out new proxies only if it changes the proxies' arguments.

use akrobateo_core::Protocol;
use e2e::{
    Failure, Namespace, ServiceBuilder, backend, ensure, ensure_eq, eventually, exposed_service_test,
    service, targets, test,
};

/// Applies a change, and checks that it does not change the proxies' DaemonSet.
async fn apply_without_rollout(namespace: &Namespace, service: &ServiceBuilder) -> Result<(), Failure> {
    let before = namespace.wait_rolled_out(service).await?;
    namespace.apply(service).await?;
    namespace.wait_operator_synced().await?;
    let after = namespace.get_daemonset(service).await?;
    ensure_eq("UID", &after.metadata.uid, &before.metadata.uid)?;
    ensure_eq("generation", &after.metadata.generation, &before.metadata.generation)?;
    namespace.wait_exposed(service).await.map(drop)
}

#[tokio::test]
async fn added_port_answers() -> Result<(), Failure> {
    exposed_service_test(
        |port| service("web").tcp(port).with_ip_mode_proxy(),
        async |namespace, web| {
            let [added] = namespace.allocate_ports().await?;
            namespace.expose(&web.udp(added)).await.map(drop)
        },
    )
    .await
}

#[tokio::test]
async fn removed_port_does_not_answer() -> Result<(), Failure> {
    test(async |namespace| {
        namespace.start_backend().await?;
        let [kept, removed] = namespace.allocate_ports().await?;
        let service_with_both_ports = service("web").tcp(kept).tcp(removed).udp(removed);
        let replies = namespace.expose(&service_with_both_ports).await?;
        let addresses: Vec<_> = replies.iter().map(|reply| reply.target.host).collect();
        let web = service_with_both_ports
            .clone()
            .without_port(Protocol::Tcp, removed)
            .without_port(Protocol::Udp, removed);
        namespace.apply(&web).await?;
        let service_with_removed_ports = service("web").tcp(removed).udp(removed);
        namespace.wait_unreachable(&targets(&service_with_removed_ports, &addresses)).await?;
        namespace.wait_rolled_out(&web).await?;
        namespace.wait_exposed(&web).await.map(drop)
    })
    .await
}

#[tokio::test]
async fn changed_target_port_needs_no_rollout() -> Result<(), Failure> {
    exposed_service_test(
        |port| service("web").tcp(port).with_ip_mode_proxy(),
        async |namespace, web| {
            let port = web.ports()[0].port();
            apply_without_rollout(namespace, &web.port(Protocol::Tcp, port, backend::SECOND_PORT)).await
        },
    )
    .await
}

#[tokio::test]
async fn changed_labels_annotations_selector_and_node_port_need_no_rollout() -> Result<(), Failure> {
    exposed_service_test(
        |port| service("web").tcp(port),
        async |namespace, web| {
            let spec = namespace.get_service(&web).await?.spec.expect("the Service has a spec");
            let node_port = spec.ports.iter().flatten().find_map(|port| port.node_port);
            let node_port = node_port.expect("the port has a nodePort");
            let web = web
                .label("team", "shop")
                .annotation("example.com/note", "x")
                .add_selector_label("tier", "web");
            apply_without_rollout(namespace, &web).await?;
            let new_node_port = if node_port == 32_767 { 30_000 } else { node_port + 1 };
            let new_node_port = new_node_port.try_into().expect("nodePorts have 16 bits");
            apply_without_rollout(namespace, &web.node_port(new_node_port)).await
        },
    )
    .await
}

#[tokio::test]
async fn changed_ip_mode_needs_no_rollout() -> Result<(), Failure> {
    exposed_service_test(
        |port| service("web").tcp(port),
        async |namespace, web| {
            let web = web.with_ip_mode_proxy();
            apply_without_rollout(namespace, &web).await?;
            eventually("the answers come through the proxies", async || {
                let replies = namespace.wait_exposed(&web).await?;
                namespace.ensure_answers_through_proxies(&web, &replies).await
            })
            .await
        },
    )
    .await
}

#[tokio::test]
async fn status_keeps_its_addresses_during_a_rollout() -> Result<(), Failure> {
    exposed_service_test(
        |port| service("web").tcp(port),
        async |namespace, web| {
            let generation = namespace.wait_rolled_out(&web).await?.metadata.generation;
            let before = namespace.published_addresses(&web).await?;
            let [added] = namespace.allocate_ports().await?;
            let web = web.tcp(added);
            namespace.apply(&web).await?;
            let roll_out_service = async {
                eventually("the operator has changed the DaemonSet", async || {
                    let current = namespace.get_daemonset(&web).await?.metadata.generation;
                    ensure(current > generation, || {
                        format!("the DaemonSet's generation is still {current:?}")
                    })
                })
                .await?;
                namespace.wait_rolled_out(&web).await
            };
            let watch_addresses = async {
                loop {
                    let current = namespace.published_addresses(&web).await?;
                    ensure_eq("published addresses", &current, &before)?;
                }
            };
            tokio::select! {
                result = roll_out_service => result.map(drop),
                failure = watch_addresses => failure,
            }
        },
    )
    .await
}

//! Port conflicts: the oldest Service owns a port, and the others get a Warning.

use std::slice;

use akrobateo_core::Protocol;
use e2e::{Failure, Target, ensure, ensure_eq, eventually, exposed_service_test, service, test};

#[tokio::test]
async fn oldest_service_owns_a_port_and_the_next_takes_over_after_its_deletion() -> Result<(), Failure> {
    exposed_service_test(
        |port| service("older").tcp(port).ip_mode_proxy(),
        async |namespace, older| {
            let port = older.ports()[0].port();
            let before = namespace.wait_rolled_out(&older).await?;
            let [free_port] = namespace.allocate_ports().await?;
            let younger = service("younger").tcp(port).tcp(free_port).ip_mode_proxy();
            namespace.apply_younger(&older, &younger).await?;
            let owner = format!("{}/older", namespace.name());
            namespace.wait_warning(&younger, "PortConflict", &[&port.to_string(), &owner]).await?;
            let daemonsets = namespace.list_daemonsets(&younger).await?;
            ensure_eq("number of DaemonSets of the younger Service", &daemonsets.len(), &0)?;
            let after = namespace.wait_rolled_out(&older).await?;
            ensure_eq(
                "generation of the older Service's DaemonSet",
                &after.metadata.generation,
                &before.metadata.generation,
            )?;
            namespace.wait_exposed(&older).await?;
            namespace.delete_service(&older).await?;
            namespace.wait_exposed(&younger).await.map(drop)
        },
    )
    .await
}

#[tokio::test]
async fn third_service_exposes_a_port_only_on_nodes_where_the_port_is_free() -> Result<(), Failure> {
    test(async |namespace| {
        namespace.start_backend().await?;
        let [port] = namespace.allocate_ports().await?;
        let nodes = namespace.cluster().list_nodes().await?;
        let [first_node, second_node, third_node] = &nodes[..] else {
            return Err(Failure::Unexpected(format!("the cluster has {} nodes, expected 3", nodes.len())));
        };
        let first_service = service("first").tcp(port).ip_mode_proxy().on_nodes(&[&first_node.name]);
        let second_service = service("second").tcp(port).ip_mode_proxy().on_nodes(&[&second_node.name]);
        namespace.apply(&first_service).await?;
        namespace.apply(&second_service).await?;
        namespace.wait_exposed_on(&first_service, slice::from_ref(first_node)).await?;
        namespace.wait_exposed_on(&second_service, slice::from_ref(second_node)).await?;
        let third_service = service("third").tcp(port).ip_mode_proxy();
        namespace.apply_younger(&second_service, &third_service).await?;
        namespace.wait_exposed_on(&third_service, slice::from_ref(third_node)).await?;
        namespace.wait_warning(&third_service, "PortConflict", &[&first_node.name, &second_node.name]).await
    })
    .await
}

#[tokio::test]
async fn service_with_a_reserved_port_gets_a_warning() -> Result<(), Failure> {
    test(async |namespace| {
        let ssh_service = service("ssh").tcp(22);
        namespace.apply(&ssh_service).await?;
        namespace.wait_warning(&ssh_service, "PortReserved", &["22/TCP", "reserved"]).await?;
        ensure_eq("number of DaemonSets", &namespace.list_daemonsets(&ssh_service).await?.len(), &0)
    })
    .await
}

#[tokio::test]
async fn service_port_that_is_another_services_node_port_gets_a_conflict() -> Result<(), Failure> {
    test(async |namespace| {
        let [port] = namespace.allocate_ports().await?;
        let spec = namespace.apply(&service("owner").tcp(port)).await?.spec.unwrap_or_default();
        let node_port = spec.ports.iter().flatten().find_map(|port| u16::try_from(port.node_port?).ok());
        let node_port = node_port.ok_or_else(|| {
            Failure::Unexpected(
                "the Service owner has no nodePort; expected a nodePort from the API server".to_owned(),
            )
        })?;
        let conflicting = service("conflicting").tcp(node_port);
        namespace.apply(&conflicting).await?;
        let owner = format!("{}/owner", namespace.name());
        namespace.wait_warning(&conflicting, "PortConflict", &["nodePort", &owner]).await
    })
    .await
}

#[tokio::test]
async fn service_waits_for_a_port_that_another_pod_holds() -> Result<(), Failure> {
    test(async |namespace| {
        namespace.start_backend().await?;
        let [port] = namespace.allocate_ports().await?;
        let nodes = namespace.cluster().list_nodes().await?;
        namespace.start_host_port_pod("holder", &nodes[0].name, port).await?;
        let web = service("web").tcp(port).ip_mode_proxy().on_nodes(&[&nodes[0].name]);
        namespace.apply(&web).await?;
        namespace.wait_warning(&web, "ProxiesNotReady", &["another pod"]).await?;
        let target = Target { protocol: Protocol::Tcp, host: nodes[0].addresses[0], port };
        eventually("the other pod answers on the port", async || {
            let replies = namespace.cluster().send_requests(&[target]).await?;
            ensure_eq("number of replies", &replies.len(), &1)?;
            ensure_eq("pod that answers", &replies[0].answer()?.host.as_str(), &"holder")
        })
        .await?;
        namespace.delete_pod("holder").await?;
        namespace.wait_exposed_on(&web, &nodes[..1]).await.map(drop)
    })
    .await
}

#[tokio::test]
async fn rollout_and_restart_of_proxies_release_no_port_to_a_waiting_service() -> Result<(), Failure> {
    exposed_service_test(
        |port| service("older").tcp(port).ip_mode_proxy(),
        async |namespace, mut older| {
            let waiting = service("waiting").tcp(older.ports()[0].port()).ip_mode_proxy();
            namespace.apply_younger(&older, &waiting).await?;
            let owner = format!("{}/older", namespace.name());
            namespace.wait_warning(&waiting, "PortConflict", &[&owner]).await?;
            let added_ports: [u16; 3] = namespace.allocate_ports().await?;
            let rollouts = async {
                for added in added_ports {
                    let before = namespace.wait_rolled_out(&older).await?.metadata.generation;
                    older = older.clone().tcp(added);
                    namespace.apply(&older).await?;
                    eventually("the operator has changed the DaemonSet", async || {
                        let current = namespace.get_daemonset(&older).await?.metadata.generation;
                        ensure(current > before, || {
                            format!("the DaemonSet's generation is still {current:?}")
                        })
                    })
                    .await?;
                }
                namespace.wait_rolled_out(&older).await?;
                // After the deletion no pod holds the port on any node for a moment.
                namespace.delete_proxy_pods(&older).await?;
                namespace.wait_rolled_out(&older).await?;
                namespace.wait_exposed(&older).await
            };
            let watch_waiting_service = async {
                loop {
                    let daemonsets = namespace.list_daemonsets(&waiting).await?.len();
                    let pods = namespace.list_proxy_pods(&waiting).await?.len();
                    ensure_eq("DaemonSets and pods of the waiting Service", &(daemonsets, pods), &(0, 0))?;
                }
            };
            tokio::select! {
                result = rollouts => result.map(drop),
                failure = watch_waiting_service => failure,
            }
        },
    )
    .await
}

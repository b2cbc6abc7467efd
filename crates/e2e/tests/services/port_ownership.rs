//! Port conflicts between Services: one Service owns a port, and the other Services get a Warning.

use std::slice;

use e2e::{
    Failure, ensure, ensure_eq, eventually, exposed_service_test, exposed_service_test_in_dedicated_mode,
    service, test,
};

#[tokio::test]
async fn younger_service_gets_the_port_of_a_deleted_older_service() -> Result<(), Failure> {
    exposed_service_test(
        |port| service("older").tcp(port).with_ip_mode_proxy(),
        async |namespace, older_service| {
            let port = older_service.ports()[0].port();
            namespace.wait_rollouts_ended(&older_service).await?;
            let workload_before = namespace.list_workload_versions(&older_service).await?;
            let [free_port] = namespace.allocate_ports().await?;
            let younger_service = service("younger").tcp(port).tcp(free_port).with_ip_mode_proxy();
            namespace.apply_younger(&older_service, &younger_service).await?;
            let owner = format!("{}/older", namespace.name());
            namespace.wait_warning(&younger_service, "PortConflict", &[&port.to_string(), &owner]).await?;
            let daemonsets = namespace.list_daemonsets(&younger_service).await?;
            ensure_eq("number of DaemonSets of the younger Service", &daemonsets.len(), &0)?;
            namespace.wait_rollouts_ended(&older_service).await?;
            let workload_after = namespace.list_workload_versions(&older_service).await?;
            ensure_eq("workload of the older Service", &workload_after, &workload_before)?;
            namespace.wait_exposed(&older_service).await?;
            namespace.delete_service(&older_service).await?;
            namespace.wait_exposed(&younger_service).await.map(drop)
        },
    )
    .await
}

#[tokio::test]
async fn third_service_is_exposed_only_on_nodes_with_a_free_port() -> Result<(), Failure> {
    test(async |namespace| {
        namespace.start_backend().await?;
        let [port] = namespace.allocate_ports().await?;
        let nodes = namespace.cluster().list_nodes().await?;
        let [first_node, second_node, third_node] = &nodes[..] else {
            return Err(Failure::UnexpectedState(format!(
                "the cluster has {} nodes, expected 3",
                nodes.len()
            )));
        };
        let first_service = service("first").tcp(port).with_ip_mode_proxy().on_nodes(&[&first_node.name]);
        let second_service = service("second").tcp(port).with_ip_mode_proxy().on_nodes(&[&second_node.name]);
        namespace.apply(&first_service).await?;
        namespace.apply(&second_service).await?;
        namespace.wait_exposed_on(&first_service, slice::from_ref(first_node)).await?;
        namespace.wait_exposed_on(&second_service, slice::from_ref(second_node)).await?;
        let third_service = service("third").tcp(port).with_ip_mode_proxy();
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
async fn port_equal_to_a_node_port_of_another_service_is_a_conflict() -> Result<(), Failure> {
    test(async |namespace| {
        let [port] = namespace.allocate_ports().await?;
        let spec = namespace.apply(&service("owner").tcp(port)).await?.spec.unwrap_or_default();
        let node_port = spec.ports.iter().flatten().find_map(|port| u16::try_from(port.node_port?).ok());
        let node_port = node_port.ok_or_else(|| {
            Failure::UnexpectedState(
                "the Service \"owner\" has no nodePort; expected a nodePort from the API server".to_owned(),
            )
        })?;
        let conflicting_service = service("conflicting").tcp(node_port);
        namespace.apply(&conflicting_service).await?;
        let owner = format!("{}/owner", namespace.name());
        namespace.wait_warning(&conflicting_service, "PortConflict", &["nodePort", &owner]).await
    })
    .await
}

#[tokio::test]
async fn port_equal_to_a_health_check_node_port_is_a_conflict() -> Result<(), Failure> {
    test(async |namespace| {
        let [port] = namespace.allocate_ports().await?;
        // The API server allocates a healthCheckNodePort for this policy.
        let owner_service = namespace.apply(&service("owner").tcp(port).traffic_policy_local()).await?;
        let health_check_port = owner_service.spec.and_then(|spec| spec.health_check_node_port);
        let health_check_port = health_check_port.and_then(|port| u16::try_from(port).ok());
        let health_check_port = health_check_port.expect("the Service has a healthCheckNodePort");
        let conflicting_service = service("conflicting").tcp(health_check_port);
        namespace.apply(&conflicting_service).await?;
        let owner = format!("{}/owner", namespace.name());
        namespace
            .wait_warning(&conflicting_service, "PortConflict", &["healthCheckNodePort", &owner])
            .await?;
        ensure_eq("published addresses", &namespace.published_addresses(&conflicting_service).await?, &vec![])
    })
    .await
}

#[tokio::test]
async fn service_keeps_its_port_when_an_older_service_starts_to_claim_it() -> Result<(), Failure> {
    test(async |namespace| {
        namespace.start_backend().await?;
        let [port] = namespace.allocate_ports().await?;
        let older_service = service("older").tcp(port);
        let cluster_ip_service = older_service.clone().with_type_cluster_ip();
        namespace.apply(&cluster_ip_service).await?;
        let current_owner = service("current-owner").tcp(port);
        namespace.apply_younger(&cluster_ip_service, &current_owner).await?;
        namespace.wait_exposed(&current_owner).await?;
        namespace.wait_rollouts_ended(&current_owner).await?;
        let workload_before = namespace.list_workload_versions(&current_owner).await?;
        namespace.apply(&older_service).await?;
        let owner = format!("{}/current-owner", namespace.name());
        namespace.wait_warning(&older_service, "PortConflict", &[&port.to_string(), &owner]).await?;
        namespace.wait_rollouts_ended(&current_owner).await?;
        ensure_eq("workload", &namespace.list_workload_versions(&current_owner).await?, &workload_before)?;
        namespace.wait_exposed(&current_owner).await.map(drop)
    })
    .await
}

#[tokio::test]
async fn waiting_service_gets_no_port_while_other_proxies_restart() -> Result<(), Failure> {
    exposed_service_test_in_dedicated_mode(
        |port| service("older").tcp(port).with_ip_mode_proxy(),
        async |namespace, mut older_service| {
            let waiting_service =
                service("waiting").tcp(older_service.ports()[0].port()).with_ip_mode_proxy();
            namespace.apply_younger(&older_service, &waiting_service).await?;
            let owner = format!("{}/older", namespace.name());
            namespace.wait_warning(&waiting_service, "PortConflict", &[&owner]).await?;
            let added_ports: [u16; 3] = namespace.allocate_ports().await?;
            let roll_out_and_restart_proxies = async {
                for added_port in added_ports {
                    let generation_before =
                        namespace.wait_rolled_out(&older_service).await?.metadata.generation;
                    older_service = older_service.clone().tcp(added_port);
                    namespace.apply(&older_service).await?;
                    eventually("the operator has changed the DaemonSet", async || {
                        let current_generation =
                            namespace.get_daemonset(&older_service).await?.metadata.generation;
                        ensure(current_generation > generation_before, || {
                            format!("the DaemonSet's generation is still {current_generation:?}")
                        })
                    })
                    .await?;
                }
                namespace.wait_rolled_out(&older_service).await?;
                // For a moment after the deletion, no pod uses the port on any node.
                namespace.delete_proxy_pods(&older_service).await?;
                namespace.wait_rolled_out(&older_service).await?;
                namespace.wait_exposed(&older_service).await
            };
            let ensure_waiting_service_has_no_proxies = async {
                loop {
                    let daemonsets = namespace.list_daemonsets(&waiting_service).await?.len();
                    let pods = namespace.list_proxy_pods(&waiting_service).await?.len();
                    ensure_eq("DaemonSets and pods of the waiting Service", &(daemonsets, pods), &(0, 0))?;
                }
            };
            tokio::select! {
                result = roll_out_and_restart_proxies => result.map(drop),
                failure = ensure_waiting_service_has_no_proxies => failure,
            }
        },
    )
    .await
}

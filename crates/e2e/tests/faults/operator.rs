//! The operator stops or is killed: the proxies keep running, and the next operator applies all changes.

use akrobateo_core::annotations::REPLICAS;
use e2e::{
    Failure, build_targets, ensure, ensure_eq, eventually, fault_test, fault_test_in_dedicated_mode, service,
};

#[tokio::test]
async fn operator_applies_changes_that_were_made_while_it_was_stopped() -> Result<(), Failure> {
    fault_test(async |namespace, faults| {
        namespace.start_backend().await?;
        let [unchanged_port, changed_port, added_port, deleted_port, retyped_port, created_port] =
            namespace.allocate_ports().await?;
        let unchanged_service = service("unchanged").tcp(unchanged_port).with_ip_mode_proxy();
        let changed_service = service("changed").tcp(changed_port);
        let deleted_service = service("deleted").tcp(deleted_port);
        let service_with_changed_type = service("retyped").tcp(retyped_port);
        for service in [&unchanged_service, &changed_service, &deleted_service, &service_with_changed_type] {
            namespace.apply(service).await?;
        }
        for service in [&unchanged_service, &changed_service, &deleted_service, &service_with_changed_type] {
            namespace.wait_exposed(service).await?;
        }
        let addresses = namespace.published_addresses(&unchanged_service).await?;

        faults.operator.stop().await?;
        let changed_service = changed_service.udp(added_port);
        let cluster_ip_service = service_with_changed_type.clone().with_type_cluster_ip();
        let created_service = service("created").tcp(created_port).with_ip_mode_proxy();
        namespace.apply(&changed_service).await?;
        namespace.delete_service(&deleted_service).await?;
        namespace.apply(&cluster_ip_service).await?;
        namespace.apply(&created_service).await?;
        namespace.wait_exposed(&unchanged_service).await?;
        let daemonsets = namespace.list_daemonsets(&created_service).await?;
        ensure_eq("number of DaemonSets of the new Service", &daemonsets.len(), &0)?;

        faults.operator.start().await?;
        namespace.wait_exposed(&changed_service).await?;
        namespace.wait_exposed(&created_service).await?;
        namespace.wait_cleaned_up(&deleted_service).await?;
        namespace.wait_cleaned_up(&cluster_ip_service).await?;
        namespace.wait_unreachable(&build_targets(&deleted_service, &addresses)).await?;
        namespace.wait_unreachable(&build_targets(&service_with_changed_type, &addresses)).await?;
        namespace.wait_exposed(&unchanged_service).await.map(drop)
    })
    .await
}

#[tokio::test]
async fn operator_that_is_killed_repeatedly_completes_all_changes() -> Result<(), Failure> {
    fault_test(async |namespace, faults| {
        namespace.start_backend().await?;
        let ports: [u16; 5] = namespace.allocate_ports().await?;
        let [short_lived_port] = namespace.allocate_ports().await?;
        let mut web = service("web").with_ip_mode_proxy();
        for (round, port) in ports.into_iter().enumerate() {
            let short_lived_service = service(&format!("short-lived-{round}")).tcp(short_lived_port);
            web = web.tcp(port).udp(port);
            namespace.apply(&web).await?;
            namespace.apply(&short_lived_service).await?;
            faults.operator.kill().await?;
            eventually("a new pod of the operator is running", async || {
                let pods = faults.operator.list_pods().await?;
                let is_running = pods.iter().any(|pod| {
                    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
                    phase == Some("Running") && pod.metadata.deletion_timestamp.is_none()
                });
                ensure(is_running, || "no pod of the operator is running".to_owned())
            })
            .await?;
            namespace.delete_service(&short_lived_service).await?;
        }
        faults.operator.wait_ready().await?;
        namespace.wait_exposed(&web).await?;
        namespace.wait_rollouts_ended(&web).await?;
        let replies = namespace.wait_exposed(&web).await?;
        namespace.ensure_forwarded(&web, &replies).await?;
        for round in 0..ports.len() {
            namespace.wait_cleaned_up(&service(&format!("short-lived-{round}"))).await?;
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn recreated_invalid_service_keeps_no_proxies_of_the_deleted_service() -> Result<(), Failure> {
    fault_test_in_dedicated_mode(async |namespace, faults| {
        namespace.start_backend().await?;
        let [port] = namespace.allocate_ports().await?;
        let web = service("web").tcp(port).with_ip_mode_proxy();
        let replies = namespace.expose(&web).await?;
        let targets: Vec<_> = replies.iter().map(|reply| reply.target).collect();
        faults.operator.stop().await?;
        namespace.delete_service(&web).await?;
        namespace.apply(&web.clone().annotation(REPLICAS, "lots")).await?;
        faults.operator.start().await?;
        // The proxies of the deleted Service forward to the old ClusterIP. Another Service may have this ClusterIP now.
        namespace.wait_cleaned_up(&web).await?;
        namespace.wait_warning(&web, "InvalidAnnotation", &["\"lots\""]).await?;
        namespace.wait_unreachable(&targets).await?;
        namespace.expose(&web).await.map(drop)
    })
    .await
}

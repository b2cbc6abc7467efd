//! The operator stops or is killed: the proxies keep running, and the next operator catches up with all changes.

use e2e::{Failure, ensure, ensure_eq, eventually, fault_test, service, targets};

#[tokio::test]
async fn operator_applies_changes_that_were_made_while_it_was_stopped() -> Result<(), Failure> {
    fault_test(async |namespace, faults| {
        namespace.start_backend().await?;
        let [unchanged_port, changed_port, added, deleted_port, retyped_port, created_port] =
            namespace.allocate_ports().await?;
        let unchanged = service("unchanged").tcp(unchanged_port).ip_mode_proxy();
        let changed = service("changed").tcp(changed_port);
        let deleted = service("deleted").tcp(deleted_port);
        let retyped_service = service("retyped").tcp(retyped_port);
        for service in [&unchanged, &changed, &deleted, &retyped_service] {
            namespace.apply(service).await?;
        }
        for service in [&unchanged, &changed, &deleted, &retyped_service] {
            namespace.wait_exposed(service).await?;
        }
        let addresses = namespace.published_addresses(&unchanged).await?;

        faults.operator.stop().await?;
        let changed = changed.udp(added);
        let cluster_ip_service = retyped_service.clone().type_cluster_ip();
        let created = service("created").tcp(created_port).ip_mode_proxy();
        namespace.apply(&changed).await?;
        namespace.delete_service(&deleted).await?;
        namespace.apply(&cluster_ip_service).await?;
        namespace.apply(&created).await?;
        namespace.wait_exposed(&unchanged).await?;
        let daemonsets = namespace.list_daemonsets(&created).await?;
        ensure_eq("number of DaemonSets of the new Service", &daemonsets.len(), &0)?;

        faults.operator.start().await?;
        namespace.wait_exposed(&changed).await?;
        namespace.wait_exposed(&created).await?;
        namespace.wait_cleaned_up(&deleted).await?;
        namespace.wait_cleaned_up(&cluster_ip_service).await?;
        namespace.wait_unreachable(&targets(&deleted, &addresses)).await?;
        namespace.wait_unreachable(&targets(&retyped_service, &addresses)).await?;
        namespace.wait_exposed(&unchanged).await.map(drop)
    })
    .await
}

#[tokio::test]
async fn repeatedly_killed_operator_leaves_no_incomplete_change() -> Result<(), Failure> {
    fault_test(async |namespace, faults| {
        namespace.start_backend().await?;
        let ports: [u16; 5] = namespace.allocate_ports().await?;
        let [short_lived_port] = namespace.allocate_ports().await?;
        let mut web = service("web").ip_mode_proxy();
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
        eventually("the proxies have all ports", async || {
            let pod = namespace.get_daemonset(&web).await?.spec.and_then(|spec| spec.template.spec);
            let ports = pod.map(|pod| pod.containers[0].ports.iter().flatten().count());
            ensure_eq("number of ports of the proxies", &ports, &Some(web.ports().len()))
        })
        .await?;
        namespace.wait_rolled_out(&web).await?;
        let replies = namespace.wait_exposed(&web).await?;
        namespace.ensure_through_proxies(&web, &replies).await?;
        for round in 0..ports.len() {
            namespace.wait_cleaned_up(&service(&format!("short-lived-{round}"))).await?;
        }
        Ok(())
    })
    .await
}

//! Operators with other settings than the defaults: no default class, another namespace for the proxies, another
//! ipMode.

use akrobateo_core::LOAD_BALANCER_CLASS;
use akrobateo_core::annotations::IP_MODE;
use e2e::{
    Failure, LocalOperator, build_targets, ensure, ensure_eq, eventually, fault_test_in_dedicated_mode,
    service,
};
use kube::ResourceExt;

#[tokio::test]
async fn operator_without_default_class_serves_only_its_own_class() -> Result<(), Failure> {
    fault_test_in_dedicated_mode(async |namespace, faults| {
        namespace.start_backend().await?;
        let [web_port, port_without_class] = namespace.allocate_ports().await?;
        faults.operator.stop().await?;
        let _operator = LocalOperator::start(namespace, &[("DEFAULT_CLASS", "false")])?;
        let service_without_class = service("classless").tcp(port_without_class);
        namespace.apply(&service_without_class).await?;
        namespace.expose(&service("web").tcp(web_port).class(LOAD_BALANCER_CLASS)).await?;
        ensure_eq(
            "number of DaemonSets",
            &namespace.list_daemonsets(&service_without_class).await?.len(),
            &0,
        )?;
        ensure_eq(
            "published addresses",
            &namespace.published_addresses(&service_without_class).await?,
            &vec![],
        )
    })
    .await
}

#[tokio::test]
async fn garbage_collector_deletes_proxies_in_the_service_namespace() -> Result<(), Failure> {
    fault_test_in_dedicated_mode(async |namespace, faults| {
        namespace.start_backend().await?;
        let [port] = namespace.allocate_ports().await?;
        let web = service("web").tcp(port).with_ip_mode_proxy();
        faults.operator.stop().await?;
        let operator = LocalOperator::start(namespace, &[("LB_NAMESPACE", "@service")])?;
        let service_uid = namespace.apply(&web).await?.uid();
        let replies = namespace.wait_exposed(&web).await?;
        namespace.ensure_answers_through_proxies(&web, &replies).await?;
        let daemonset = namespace.get_daemonset(&web).await?;
        ensure_eq("namespace", &daemonset.namespace().as_deref(), &Some(namespace.name()))?;
        ensure(daemonset.name_any().starts_with("akrobateo-web-"), || daemonset.name_any())?;
        let owner_uid = daemonset.owner_references().first().map(|owner| owner.uid.clone());
        ensure_eq("UID of the owner", &owner_uid, &service_uid)?;
        drop(operator);
        namespace.delete_service(&web).await?;
        namespace.wait_cleaned_up(&web).await
    })
    .await
}

#[tokio::test]
async fn operator_moves_the_proxies_to_the_changed_lb_namespace() -> Result<(), Failure> {
    fault_test_in_dedicated_mode(async |namespace, faults| {
        namespace.start_backend().await?;
        let [web_port, deleted_port] = namespace.allocate_ports().await?;
        let (old_namespace, new_namespace) = (
            namespace.create_another_namespace("old").await?,
            namespace.create_another_namespace("new").await?,
        );
        let web = service("web").tcp(web_port).with_ip_mode_proxy();
        let deleted_service = service("deleted").tcp(deleted_port);
        faults.operator.stop().await?;
        let operator = LocalOperator::start(namespace, &[("LB_NAMESPACE", old_namespace.name())])?;
        namespace.apply(&web).await?;
        namespace.apply(&deleted_service).await?;
        namespace.wait_exposed(&web).await?;
        namespace.wait_exposed(&deleted_service).await?;
        drop(operator);
        namespace.delete_service(&deleted_service).await?;

        let _operator = LocalOperator::start(
            namespace,
            &[("LB_NAMESPACE", new_namespace.name()), ("FORMER_LB_NAMESPACES", old_namespace.name())],
        )?;
        eventually("the only DaemonSet is in the new namespace", async || {
            let daemonset = namespace.get_daemonset(&web).await?;
            ensure_eq("namespace", &daemonset.namespace().as_deref(), &Some(new_namespace.name()))
        })
        .await?;
        namespace.wait_rolled_out(&web).await?;
        namespace.wait_exposed(&web).await?;
        namespace.wait_cleaned_up(&deleted_service).await
    })
    .await
}

#[tokio::test]
async fn operator_publishes_ip_mode_proxy_if_kube_proxy_uses_ipvs() -> Result<(), Failure> {
    fault_test_in_dedicated_mode(async |namespace, faults| {
        namespace.start_backend().await?;
        let [web_port, annotated_port] = namespace.allocate_ports().await?;
        faults.set_kube_proxy_mode("ipvs").await?;
        faults.operator.restart().await?;
        let web = service("web").tcp(web_port).expect_ip_mode("Proxy");
        let replies = namespace.expose(&web).await?;
        namespace.ensure_answers_through_proxies(&web, &replies).await?;
        // In IPVS mode, ipMode VIP would let kube-proxy bind the nodes' addresses on every node.
        let annotated_service = service("annotated").tcp(annotated_port).annotation(IP_MODE, "VIP");
        namespace.apply(&annotated_service).await?;
        namespace.wait_warning(&annotated_service, "InvalidAnnotation", &["IPVS", "allowed: Proxy"]).await
    })
    .await
}

#[tokio::test]
async fn operator_publishes_ip_mode_proxy_after_cilium_has_replaced_kube_proxy() -> Result<(), Failure> {
    fault_test_in_dedicated_mode(async |namespace, faults| {
        namespace.start_backend().await?;
        let [port] = namespace.allocate_ports().await?;
        let web = service("web").tcp(port);
        namespace.expose(&web).await?;
        // The running operator reads the changed configuration without a restart.
        faults.set_kube_proxy_replacement().await?;
        let web = web.expect_ip_mode("Proxy");
        namespace.wait_published(&web, &namespace.cluster().list_nodes().await?).await?;
        eventually("the answers come through the proxies", async || {
            let replies = namespace.wait_exposed(&web).await?;
            namespace.ensure_answers_through_proxies(&web, &replies).await
        })
        .await
    })
    .await
}

#[tokio::test]
async fn service_releases_a_port_that_becomes_reserved() -> Result<(), Failure> {
    fault_test_in_dedicated_mode(async |namespace, faults| {
        namespace.start_backend().await?;
        let [port] = namespace.allocate_ports().await?;
        let web = service("web").tcp(port);
        faults.operator.stop().await?;
        let operator = LocalOperator::start(namespace, &[])?;
        let addresses: Vec<_> = namespace.expose(&web).await?.iter().map(|reply| reply.target.host).collect();
        drop(operator);
        let reserved_ports = format!("22,tcp/{port}");
        let _operator = LocalOperator::start(namespace, &[("RESERVED_PORTS", &reserved_ports)])?;
        let parts = [&format!("{port}/TCP"), "reserved"];
        namespace.wait_warning(&web, "PortReserved", &parts).await?;
        namespace.wait_cleaned_up(&web).await?;
        namespace.wait_unreachable(&build_targets(&web, &addresses)).await
    })
    .await
}

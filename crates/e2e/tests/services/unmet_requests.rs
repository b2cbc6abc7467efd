//! Requests that Akrobateo does not meet, or that have no effect: the condition tells them.

use akrobateo_core::LOAD_BALANCER_CLASS;
use e2e::{
    Failure, Namespace, ServiceBuilder, consistently, ensure, ensure_eq, exposed_service_test, service, test,
};
use k8s_openapi::api::core::v1::Service;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use std::time::Duration;

#[tokio::test]
async fn session_affinity_that_proxies_cannot_keep_gets_a_warning() -> Result<(), Failure> {
    exposed_service_test(
        |port| service("web").tcp(port).session_affinity(),
        async |namespace, web| {
            // kube-proxy keeps the affinity.
            namespace.wait_condition(&web, "Exposed", &[]).await?;
            namespace.ensure_no_warnings(&web).await?;
            let web = web.with_ip_mode_proxy();
            namespace.expose(&web).await?;
            namespace.wait_warning(&web, "SessionAffinityNotKept", &["sessionAffinity is ClientIP"]).await
        },
    )
    .await
}

#[tokio::test]
async fn requests_for_an_address_are_told_without_a_warning() -> Result<(), Failure> {
    exposed_service_test(
        |port| {
            let web = service("web").tcp(port).load_balancer_ip("192.0.2.9");
            web.annotation("metallb.io/loadBalancerIPs", "192.0.2.9")
        },
        async |namespace, web| {
            let parts = ["loadBalancerIP 192.0.2.9", "metallb.io/loadBalancerIPs", "no effect"];
            namespace.wait_condition(&web, "Exposed", &parts).await?;
            namespace.ensure_no_warnings(&web).await
        },
    )
    .await
}

/// Publishes an address as another implementation of load balancers does.
async fn publish_foreign_address(namespace: &Namespace, service: &ServiceBuilder) -> Result<(), Failure> {
    let services: Api<Service> = Api::namespaced(namespace.cluster().client.clone(), namespace.name());
    let params = PatchParams { field_manager: Some("other-lb".to_owned()), ..PatchParams::default() };
    let patch = json!({ "status": { "loadBalancer": { "ingress": [{ "ip": "192.0.2.66" }] } } });
    services.patch_status(service.name(), &params, &Patch::Merge(patch)).await?;
    Ok(())
}

#[tokio::test]
async fn foreign_address_of_a_service_without_nodes_stays_and_is_told_once() -> Result<(), Failure> {
    test(async |namespace| {
        let [port] = namespace.allocate_ports().await?;
        let web = service("web").tcp(port).class(LOAD_BALANCER_CLASS).on_nodes(&["nowhere"]);
        namespace.apply(&web).await?;
        namespace.wait_warning(&web, "NoNodes", &["no node matches"]).await?;
        publish_foreign_address(namespace, &web).await?;
        namespace.wait_condition(&web, "NoNodes", &["192.0.2.66", "other-lb"]).await?;
        let before = namespace.get_service(&web).await?.metadata.resource_version;
        consistently(Duration::from_secs(3), "the operator does not write the status again", async || {
            let service = namespace.get_service(&web).await?;
            ensure_eq("resourceVersion", &service.metadata.resource_version, &before)
        })
        .await?;
        let addresses = namespace.published_addresses(&web).await?;
        ensure(addresses == ["192.0.2.66".parse::<std::net::IpAddr>().unwrap()], || format!("{addresses:?}"))
    })
    .await
}

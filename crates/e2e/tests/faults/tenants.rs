//! Tests with two tenants. The proxies of each tenant are in the tenant's own namespace, where the tenant can create
//! any object.

use std::slice;

use akrobateo_core::annotations::IP_MODE;
use akrobateo_core::{DEFAULT_INSTANCE, labels};
use e2e::backend::echo_pod;
use e2e::{
    Failure, LocalOperator, Namespace, ServiceBuilder, ensure_eq, fault_test_in_dedicated_mode, service,
};
use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::json;

/// Applies a Deployment without pods. The Deployment looks like the proxies of the tenant's own Service, and has the
/// port of another Service as its hostPort.
async fn forge_proxies(tenant: &Namespace, service: &ServiceBuilder, port: u16) -> Result<(), Failure> {
    let labels = labels::proxy_labels(DEFAULT_INSTANCE, tenant.name(), service.name());
    let uid = tenant.get_service(service).await?.uid();
    let owner = json!({ "apiVersion": "v1", "kind": "Service", "name": service.name(), "uid": uid, "controller": true });
    let container = json!({
        "name": "forward", "image": "example.com/forged:1", "ports": [{ "containerPort": port, "hostPort": port }],
    });
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {
            "name": "forged", "labels": labels, "annotations": { "akrobateo.io/service-uid": uid },
            "ownerReferences": [owner],
        },
        "spec": {
            "replicas": 0, "selector": { "matchLabels": labels },
            "template": { "metadata": { "labels": labels }, "spec": { "containers": [container] } },
        },
    });
    let api: Api<Deployment> = Api::namespaced(tenant.cluster().client.clone(), tenant.name());
    api.patch("forged", &PatchParams::apply(DEFAULT_INSTANCE).force(), &Patch::Apply(deployment)).await?;
    Ok(())
}

#[tokio::test]
async fn tenant_changes_no_port_and_no_address_of_another_tenant() -> Result<(), Failure> {
    fault_test_in_dedicated_mode(async |shop, faults| {
        let other_tenant = shop.create_another_namespace("other").await?;
        shop.start_backend().await?;
        other_tenant.start_backend().await?;
        let nodes = shop.cluster().list_nodes().await?;
        let [port, other_port] = shop.allocate_ports().await?;
        faults.operator.stop().await?;
        // An empty WATCH_NAMESPACE selects all namespaces.
        let _operator = LocalOperator::start(shop, &[("LB_NAMESPACE", "@service"), ("WATCH_NAMESPACE", "")])?;
        let web = service("web").tcp(port).on_nodes(&[&nodes[0].name]);
        shop.expose_on(&web, &nodes[..1]).await?;
        shop.wait_rolled_out(&web).await?;

        // The other tenant gets the same port on a node that the first Service does not select.
        let service_with_same_port = service("same-port").tcp(port).on_nodes(&[&nodes[1].name]);
        other_tenant.expose_on(&service_with_same_port, slice::from_ref(&nodes[1])).await?;
        let labels = labels::proxy_labels(DEFAULT_INSTANCE, shop.name(), web.name());
        let pod = echo_pod("forged").on_node(&nodes[1].name);
        let pod = labels.iter().fold(pod, |pod, (name, value)| pod.label(name, value));
        other_tenant.start_pod(&pod).await?;

        let tenant_service = service("tenant-service").tcp(other_port);
        other_tenant.expose(&tenant_service).await?;
        forge_proxies(&other_tenant, &tenant_service, port).await?;
        other_tenant.apply(&tenant_service.clone().annotation(IP_MODE, "bogus")).await?;
        other_tenant.wait_warning(&tenant_service, "InvalidAnnotation", &["bogus"]).await?;

        let conflicting_service = service("conflicting").tcp(port).on_nodes(&[&nodes[0].name]);
        other_tenant.apply(&conflicting_service).await?;
        let owner = format!("{}/web", shop.name());
        other_tenant.wait_warning(&conflicting_service, "PortConflict", &[&port.to_string(), &owner]).await?;
        ensure_eq(
            "published addresses",
            &other_tenant.published_addresses(&conflicting_service).await?,
            &vec![],
        )?;

        shop.wait_operator_synced().await?;
        shop.wait_exposed_on(&web, &nodes[..1]).await?;
        shop.wait_condition(&web, "Exposed", &[]).await?;
        shop.ensure_no_warnings(&web).await?;
        other_tenant.wait_exposed_on(&service_with_same_port, slice::from_ref(&nodes[1])).await.map(drop)
    })
    .await
}

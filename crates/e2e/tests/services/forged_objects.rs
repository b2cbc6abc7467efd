//! Objects of a tenant with the labels of proxies. The operator does not trust labels, so such objects have no effect.

use akrobateo_core::annotations::IP_MODE;
use akrobateo_core::{DEFAULT_INSTANCE, labels};
use e2e::backend::echo_pod;
use e2e::{Failure, Namespace, ServiceBuilder, ensure_eq, exposed_service_test, service, test};
use k8s_openapi::api::apps::v1::Deployment;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;

/// Applies a Deployment without pods in the tenant's namespace. The Deployment's pod template has a hostPort, and the
/// labels of the proxies of a Service. The Deployment has the field manager of the operator, because every tenant can
/// choose this field manager.
async fn forge_deployment(
    tenant: &Namespace,
    name: &str,
    (namespace, service): (&Namespace, &ServiceBuilder),
    port: u16,
) -> Result<(), Failure> {
    let labels = labels::proxy_labels(DEFAULT_INSTANCE, namespace.name(), service.name());
    let container = json!({
        "name": "forward", "image": "example.com/forged:1", "ports": [{ "containerPort": port, "hostPort": port }],
    });
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": name, "labels": labels },
        "spec": {
            "replicas": 0, "selector": { "matchLabels": labels },
            "template": { "metadata": { "labels": labels }, "spec": { "containers": [container] } },
        },
    });
    let api: Api<Deployment> = Api::namespaced(tenant.cluster().client.clone(), tenant.name());
    api.patch(name, &PatchParams::apply(DEFAULT_INSTANCE).force(), &Patch::Apply(deployment)).await?;
    Ok(())
}

#[tokio::test]
async fn forged_deployments_take_no_port_from_another_service() -> Result<(), Failure> {
    exposed_service_test(
        |port| service("victim").tcp(port),
        async |namespace, victim| {
            namespace.wait_rollouts_ended(&victim).await?;
            let workload_before = namespace.list_workload_versions(&victim).await?;
            let tenant = namespace.create_another_namespace("tenant").await?;
            let [port] = tenant.allocate_ports().await?;
            let tenant_service = service("tenant-service").tcp(port);
            tenant.apply(&tenant_service).await?;
            tenant.wait_published(&tenant_service, &namespace.cluster().list_nodes().await?).await?;
            let port_of_victim = victim.ports()[0].port();
            forge_deployment(&tenant, "tenant-service", (&tenant, &tenant_service), port_of_victim).await?;
            forge_deployment(&tenant, "victim", (namespace, &victim), port_of_victim).await?;
            tenant.apply(&tenant_service.clone().annotation(IP_MODE, "bogus")).await?;
            tenant.wait_warning(&tenant_service, "InvalidAnnotation", &["bogus"]).await?;
            namespace.wait_operator_synced().await?;
            ensure_eq("workload", &namespace.list_workload_versions(&victim).await?, &workload_before)?;
            namespace.wait_exposed(&victim).await?;
            namespace.wait_condition(&victim, "Exposed", &[]).await?;
            namespace.ensure_no_warnings(&victim).await
        },
    )
    .await
}

#[tokio::test]
async fn forged_pod_adds_no_address_to_another_service() -> Result<(), Failure> {
    test(async |namespace| {
        namespace.start_backend().await?;
        let nodes = namespace.cluster().list_nodes().await?;
        let [port] = namespace.allocate_ports().await?;
        let victim = service("victim").tcp(port).on_nodes(&[&nodes[0].name]);
        namespace.expose_on(&victim, &nodes[..1]).await?;
        let tenant = namespace.create_another_namespace("tenant").await?;
        let labels = labels::proxy_labels(DEFAULT_INSTANCE, namespace.name(), victim.name());
        let pod = echo_pod("forged").on_node(&nodes[1].name).host_port(port);
        let pod = labels.iter().fold(pod, |pod, (name, value)| pod.label(name, value));
        tenant.start_pod(&pod).await?;
        // The operator also ignores a forged pod in the Service's own namespace.
        namespace.start_pod(&pod.on_node(&nodes[2].name)).await?;
        namespace.wait_operator_synced().await?;
        namespace.wait_exposed_on(&victim, &nodes[..1]).await.map(drop)
    })
    .await
}

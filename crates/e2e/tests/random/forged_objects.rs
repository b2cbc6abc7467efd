//! Objects of a tenant that look like proxies of the operator. Does I/O.

use std::collections::BTreeMap;

use akrobateo_core::{DEFAULT_INSTANCE, labels};
use e2e::{Failure, Namespace};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, from_value, json};

/// Creates a Deployment, a DaemonSet and a pod in the tenant's namespace, with the labels and the field manager of the
/// proxies of a Service. No pod uses the hostPort, because a port that a pod uses is another test case.
pub(crate) async fn forge_proxies(
    tenant: &Namespace,
    service_namespace: &Namespace,
    service_name: &str,
    port: u16,
) -> Result<(), Failure> {
    let client = tenant.cluster().client.clone();
    let labels = labels::proxy_labels(DEFAULT_INSTANCE, service_namespace.name(), service_name);
    let name = format!("akrobateo-forged-{}-{service_name}", service_namespace.name());
    let ports = json!([{ "containerPort": port, "hostPort": port }]);
    let template = |ports: Value| {
        json!({
            "metadata": { "labels": labels },
            "spec": {
                "nodeSelector": { "kubernetes.io/hostname": "none" },
                "containers": [{ "name": "forward", "image": "forged", "ports": ports }],
            },
        })
    };
    let object = |kind: &str, api_version: &str, spec: &Value| {
        json!({
            "apiVersion": api_version, "kind": kind, "metadata": { "name": name, "labels": labels }, "spec": spec,
        })
    };
    let workload_spec = json!({ "selector": { "matchLabels": labels }, "template": template(ports.clone()) });
    let params = PatchParams::apply(DEFAULT_INSTANCE).force();
    let daemonset = Patch::Apply(object("DaemonSet", "apps/v1", &workload_spec));
    Api::<DaemonSet>::namespaced(client.clone(), tenant.name()).patch(&name, &params, &daemonset).await?;
    let mut deployment_spec = workload_spec.clone();
    deployment_spec["replicas"] = json!(0);
    let deployment = Patch::Apply(object("Deployment", "apps/v1", &deployment_spec));
    Api::<Deployment>::namespaced(client.clone(), tenant.name()).patch(&name, &params, &deployment).await?;
    forge_pod(tenant, &name, &labels).await
}

/// Creates a ready pod with the labels of a proxy, on the node of the tenant's backend. The pod is a copy of the
/// backend.
async fn forge_pod(tenant: &Namespace, name: &str, labels: &BTreeMap<String, String>) -> Result<(), Failure> {
    let pods = Api::<Pod>::namespaced(tenant.cluster().client.clone(), tenant.name());
    if pods.get_opt(name).await?.is_some() {
        return Ok(());
    }
    let backend = pods.get("backend").await?;
    let spec = backend.spec.unwrap_or_default();
    let containers: Vec<_> = spec.containers.iter().map(|container| {
        json!({ "name": container.name, "image": container.image, "args": container.args, "env": container.env })
    }).collect();
    let object = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name, "labels": labels },
        "spec": {
            "nodeName": spec.node_name, "automountServiceAccountToken": false, "terminationGracePeriodSeconds": 0,
            "containers": containers,
        },
    });
    let pod: Pod = from_value(object).map_err(kube::Error::SerdeError)?;
    pods.create(&PostParams::default(), &pod).await?;
    Ok(())
}

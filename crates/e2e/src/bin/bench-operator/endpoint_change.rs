//! Measures the time from a change of an endpoint to the first answer of the new endpoint. Does I/O.

use std::time::Duration;

use e2e::backend::{PORT, backend_pod};
use e2e::{Failure, Namespace, ServiceBuilder, service};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::json;
use tokio::time::Instant;

const ROUND_COUNT: usize = 20;

/// Returns the durations of all rounds. Each round moves the only endpoint of a Service to another node, and sends
/// requests to a third node until the new endpoint answers.
pub(crate) async fn measure_endpoint_changes(namespace: &Namespace) -> Result<Vec<Duration>, Failure> {
    let nodes = namespace.cluster().list_nodes().await?;
    let mut backends = Vec::new();
    for (name, node) in [("first", &nodes[0]), ("second", &nodes[1])] {
        backends.push(namespace.start_pod(&backend_pod().named(name).on_node(&node.name)).await?);
    }
    let [port] = namespace.allocate_ports().await?;
    // The program itself writes the EndpointSlice, so that it knows the time of each change.
    let web = service("endpoint-change").tcp(port).without_selector();
    namespace.apply(&web).await?;
    set_only_endpoint(namespace, &web, &backends[0]).await?;
    let replies = namespace.wait_exposed(&web).await?;
    let target =
        replies.iter().map(|reply| reply.target).find(|target| nodes[2].addresses.contains(&target.host));
    let target =
        target.ok_or_else(|| Failure::UnexpectedState("the third node has no address".to_owned()))?;
    let mut durations = Vec::new();
    for round in 1..=ROUND_COUNT {
        let backend = &backends[round % 2];
        let changed_at = Instant::now();
        set_only_endpoint(namespace, &web, backend).await?;
        loop {
            let replies = namespace.cluster().send_requests(&[target]).await?;
            if replies
                .iter()
                .any(|reply| reply.result.as_ref().is_ok_and(|answer| answer.host == backend.name_any()))
            {
                break;
            }
        }
        durations.push(changed_at.elapsed());
    }
    namespace.delete_service(&web).await?;
    Ok(durations)
}

/// Makes a pod the only endpoint of the Service.
async fn set_only_endpoint(
    namespace: &Namespace,
    web: &ServiceBuilder,
    backend: &Pod,
) -> Result<(), Failure> {
    let service = web.name();
    // `ServiceBuilder` gives the ports of a Service names of this form.
    let port_name = format!("tcp-{}", web.ports()[0].port());
    let address = backend.status.as_ref().and_then(|status| status.pod_ip.clone());
    let node = backend.spec.as_ref().and_then(|spec| spec.node_name.clone());
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": { "name": service, "labels": { "kubernetes.io/service-name": service } },
        "addressType": "IPv4",
        "endpoints": [{ "addresses": [address], "nodeName": node, "conditions": { "ready": true } }],
        "ports": [{ "name": port_name, "port": PORT, "protocol": "TCP" }],
    });
    let api: Api<EndpointSlice> = Api::namespaced(namespace.cluster().client.clone(), namespace.name());
    api.patch(service, &PatchParams::apply("bench").force(), &Patch::Apply(slice)).await?;
    Ok(())
}

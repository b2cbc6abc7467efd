//! The Node objects. No kubelet runs, so the nodes have no heartbeats. Does I/O.

use std::net::Ipv4Addr;

use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::Node;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};

use crate::error::{Context, ScaleError};

/// The network interface of the node whose agent is the real program.
pub(super) const REAL_NODE_INTERFACE: &str = "eth0";
const PARALLEL_REQUESTS: usize = 20;

/// Returns the name of a node. The first node has the index 0.
pub(crate) fn node_name(index: usize) -> String {
    format!("node-{index:04}")
}

/// Returns the address of a node.
pub(crate) fn node_address(index: usize) -> Ipv4Addr {
    address_at(Ipv4Addr::new(10, 0, 0, 0), index + 1)
}

/// Returns the address with this distance from the first address of a range.
pub(crate) fn address_at(first: Ipv4Addr, distance: usize) -> Ipv4Addr {
    // The sizes of `Size` are far below the limit.
    Ipv4Addr::from(first.to_bits().saturating_add(u32::try_from(distance).unwrap_or(u32::MAX)))
}

fn node(index: usize) -> Value {
    let pod_range = format!("{}/24", address_at(Ipv4Addr::new(100, 64, 0, 0), index * 256));
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {
            "name": node_name(index),
            "labels": {
                "kubernetes.io/os": "linux",
                "kubernetes.io/arch": "amd64",
                "kubernetes.io/hostname": node_name(index),
                "topology.kubernetes.io/zone": format!("zone-{}", index % 3),
            },
        },
        "spec": { "podCIDR": pod_range, "podCIDRs": [pod_range] },
    })
}

fn status(index: usize) -> Value {
    json!({
        "addresses": [
            { "type": "InternalIP", "address": node_address(index) },
            { "type": "Hostname", "address": node_name(index) },
        ],
        "conditions": [{
            "type": "Ready", "status": "True", "reason": "KubeletReady", "message": "",
            "lastHeartbeatTime": "2026-01-01T00:00:00Z", "lastTransitionTime": "2026-01-01T00:00:00Z",
        }],
    })
}

/// Creates the Node objects, each with its address and the condition Ready.
pub(crate) async fn create_nodes(client: &Client, count: usize) -> Result<(), ScaleError> {
    let api: Api<Node> = Api::all(client.clone());
    let create = async |index: usize| -> kube::Result<()> {
        let object = serde_json::from_value(node(index)).map_err(kube::Error::SerdeError)?;
        api.create(&PostParams::default(), &object).await?;
        let (name, parameters) = (node_name(index), PatchParams::default());
        // The API server adds a taint to each new node. Only the controller of node life cycles removes it.
        let patch = Patch::Merge(json!({ "spec": { "taints": null } }));
        api.patch(&name, &parameters, &patch).await?;
        api.patch_status(&name, &parameters, &Patch::Merge(json!({ "status": status(index) })))
            .await
            .map(drop)
    };
    let requests = stream::iter(0..count).map(create).buffer_unordered(PARALLEL_REQUESTS);
    requests.try_collect::<()>().await.context("creating the nodes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_have_different_addresses_and_pod_ranges() {
        assert_eq!(node_address(0).to_string(), "10.0.0.1");
        assert_eq!(node_address(255).to_string(), "10.0.1.0");
        assert_eq!(node(1)["spec"]["podCIDR"], "100.64.1.0/24");
        assert_eq!(node(256)["spec"]["podCIDR"], "100.65.0.0/24");
        assert!(serde_json::from_value::<Node>(node(3)).is_ok());
    }
}

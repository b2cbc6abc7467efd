//! The faults that tests inject into the cluster that `cluster/up` starts, and the functions that undo them. Does I/O.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use akrobateo_core::annotations::NODE_ADDRESS;
use k8s_openapi::api::core::v1::{ConfigMap, ContainerState, Node, Pod, Service, Taint};
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::json;

use crate::agents::Agents;
use crate::answer::{Answer, ParseAnswerError};
use crate::cluster::Cluster;
use crate::command;
use crate::delete::delete_if_exists;
use crate::environment;
use crate::failure::{Failure, ensure};
use crate::operator::Operator;
use crate::polling::eventually;
use crate::target::Target;
use crate::throttle::Throttle;

/// The well-known label that excludes a node from external load balancers.
const EXCLUDE_LABEL: &str = "node.kubernetes.io/exclude-from-external-load-balancers";
/// A label of nodes that tests use in node selectors.
pub const POOL_LABEL: &str = "e2e.akrobateo.io/pool";
/// The taint that the cluster autoscaler sets on a node before it deletes the node.
const DELETION_TAINT: &str = "ToBeDeletedByClusterAutoscaler";
/// A type of node address. No node of the cluster has an address of this type.
const EXTERNAL_IP: &str = "ExternalIP";
/// The namespace of the `ConfigMaps` with the configuration of kube-proxy and Cilium.
const CONFIG_MAP_NAMESPACE: &str = "kube-system";
/// The name of the `ConfigMap` in which kubeadm keeps kube-proxy's configuration.
const KUBE_PROXY_CONFIG_MAP: &str = "kube-proxy";
/// The name of the `ConfigMap` with Cilium's configuration.
const CILIUM_CONFIG_MAP: &str = "cilium-config";

/// A script for a node's process namespace: kills the processes of the container with the id `$1`.
const KILL_CONTAINER_SCRIPT: &str = r#"
for process in /proc/[0-9]*; do
  if grep -q "$1" "$process/cgroup" 2>/dev/null; then kill -KILL "${process#/proc/}" && killed=1; fi
done
[ -n "$killed" ]"#;

/// A script for a node's process namespace: runs `$2...` in the network namespace of the container with the id `$1`.
const EXEC_IN_POD_NETWORK_SCRIPT: &str = r#"
id=$1; shift
for process in /proc/[0-9]*; do
  if grep -q "$id" "$process/cgroup" 2>/dev/null; then
    exec nsenter --target "${process#/proc/}" --net -- "$@"
  fi
done
exit 1"#;

/// A script for a node's process namespace: prints the status of the processes with the name `$1`.
const PROCESS_STATUS_SCRIPT: &str = r#"
for process in /proc/[0-9]*; do
  if [ "$(cat "$process/comm" 2>/dev/null)" = "$1" ]; then cat "$process/status"; fi
done"#;

/// Injects faults into the cluster that `cluster/up` starts.
pub struct Faults {
    /// The operator that is deployed in the cluster.
    pub operator: Operator,
    /// The agents that are deployed in the cluster.
    pub agents: Agents,
    nodes: Api<Node>,
    config_maps: Api<ConfigMap>,
    node_events: Api<Event>,
    throttle: Throttle,
    commands_directory: PathBuf,
    echo_path: String,
}

impl Faults {
    pub(crate) fn new(cluster: &Cluster) -> Result<Self, Failure> {
        Ok(Self {
            operator: Operator::new(&cluster.client),
            agents: Agents::new(cluster),
            nodes: Api::all(cluster.client.clone()),
            config_maps: Api::namespaced(cluster.client.clone(), CONFIG_MAP_NAMESPACE),
            node_events: Api::namespaced(cluster.client.clone(), "default"),
            throttle: Throttle::new(&cluster.client),
            commands_directory: environment::CLUSTER_DIRECTORY.read_value()?.into(),
            echo_path: cluster.environment.echo_path.clone(),
        })
    }

    /// Disconnects a node from the network.
    pub async fn disconnect_node(&self, node: &str) -> Result<(), Failure> {
        self.run_node_command(&["cut", node]).await.map(drop)
    }

    /// Connects a node to the network again.
    pub async fn reconnect_node(&self, node: &str) -> Result<(), Failure> {
        self.run_node_command(&["restore", node]).await.map(drop)
    }

    /// Sets the label that excludes a node from external load balancers.
    pub async fn set_exclude_label(&self, node: &str) -> Result<(), Failure> {
        self.set_label(node, EXCLUDE_LABEL, Some("")).await
    }

    /// Removes the label that excludes a node from external load balancers.
    pub async fn remove_exclude_label(&self, node: &str) -> Result<(), Failure> {
        self.set_label(node, EXCLUDE_LABEL, None).await
    }

    /// Sets the label [`POOL_LABEL`] of a node. `None` removes the label.
    pub async fn set_pool_label(&self, node: &str, pool: Option<&str>) -> Result<(), Failure> {
        self.set_label(node, POOL_LABEL, pool).await
    }

    /// Sets the annotation `akrobateo.io/address` of a node. The operator publishes these addresses instead of the
    /// node's own addresses. `None` removes the annotation.
    pub async fn override_addresses(&self, node: &str, addresses: Option<&str>) -> Result<(), Failure> {
        self.patch_node(node, json!({ "metadata": { "annotations": { NODE_ADDRESS: addresses } } })).await
    }

    /// Sets the taint that the cluster autoscaler sets before it deletes a node.
    pub async fn set_deletion_taint(&self, node: &str) -> Result<(), Failure> {
        let taints = json!([{ "key": DELETION_TAINT, "effect": "NoSchedule" }]);
        self.patch_node(node, json!({ "spec": { "taints": taints } })).await
    }

    /// Removes the cluster autoscaler's taint.
    pub async fn remove_deletion_taint(&self, node: &str) -> Result<(), Failure> {
        self.patch_node(node, json!({ "spec": { "taints": null } })).await
    }

    /// Returns the events about a node.
    pub async fn list_node_events(&self, node: &str) -> Result<Vec<Event>, Failure> {
        let events = self.node_events.list(&ListParams::default()).await?;
        let is_about_node = |event: &Event| {
            event.regarding.as_ref().is_some_and(|regarding| {
                regarding.kind.as_deref() == Some("Node") && regarding.name.as_deref() == Some(node)
            })
        };
        Ok(events.items.into_iter().filter(is_about_node).collect())
    }

    /// Adds an address of type `ExternalIP` to a node. The kubelet removes the address within seconds.
    pub async fn add_external_ip(&self, node: &str, address: &str) -> Result<(), Failure> {
        let addresses = json!([{ "type": EXTERNAL_IP, "address": address }]);
        let patch = Patch::Strategic(json!({ "status": { "addresses": addresses } }));
        self.nodes.patch_status(node, &PatchParams::default(), &patch).await?;
        Ok(())
    }

    async fn remove_external_ip(&self, node: &str) -> Result<(), Failure> {
        let addresses = json!([{ "type": EXTERNAL_IP, "$patch": "delete" }]);
        let patch = Patch::Strategic(json!({ "status": { "addresses": addresses } }));
        self.nodes.patch_status(node, &PatchParams::default(), &patch).await?;
        Ok(())
    }

    /// Creates kubeadm's `ConfigMap` with this mode of kube-proxy.
    pub async fn set_kube_proxy_mode(&self, mode: &str) -> Result<(), Failure> {
        let config = format!("kind: KubeProxyConfiguration\nmode: {mode}\n");
        self.create_config_map(KUBE_PROXY_CONFIG_MAP, "config.conf", config).await
    }

    /// Creates Cilium's `ConfigMap` with the setting that Cilium replaces kube-proxy.
    pub async fn set_kube_proxy_replacement(&self) -> Result<(), Failure> {
        self.create_config_map(CILIUM_CONFIG_MAP, "kube-proxy-replacement", "true".to_owned()).await
    }

    async fn create_config_map(&self, name: &str, key: &str, value: String) -> Result<(), Failure> {
        let object = ConfigMap {
            metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
            data: Some(BTreeMap::from([(key.to_owned(), value)])),
            ..ConfigMap::default()
        };
        self.config_maps.create(&PostParams::default(), &object).await?;
        Ok(())
    }

    /// Sends a request from a node, and returns the answer.
    pub async fn request_from_node(&self, node: &str, target: Target) -> Result<Answer, Failure> {
        let Target { protocol, host, port } = target;
        let (protocol, host, port) = (protocol.to_string(), host.to_string(), port.to_string());
        let words = ["exec", node, &self.echo_path, "client", &protocol, &host, &port];
        let answer = self.run_node_command(&words).await?;
        answer.trim().parse().map_err(|error: ParseAnswerError| Failure::UnexpectedState(error.to_string()))
    }

    /// Limits the operator to one request at a time: the API server answers all other requests with 429 Too Many
    /// Requests.
    pub async fn throttle_operator(&self) -> Result<(), Failure> {
        self.throttle.enable().await
    }

    /// Removes the limit of [`Self::throttle_operator`].
    pub async fn unthrottle_operator(&self) -> Result<(), Failure> {
        self.throttle.disable().await
    }

    /// Pauses the API server: connections stay open, but no request is answered.
    pub async fn pause_api_server(&self) -> Result<(), Failure> {
        self.run_cluster_command("api-server", &["pause"]).await.map(drop)
    }

    /// Resumes the API server.
    pub async fn resume_api_server(&self) -> Result<(), Failure> {
        self.run_cluster_command("api-server", &["resume"]).await.map(drop)
    }

    /// Returns the metrics of an operator's pod. Sends the request from the pod's node to the pod's address.
    pub async fn get_operator_metrics(&self, pod: &Pod) -> Result<String, Failure> {
        let address = pod.status.as_ref().and_then(|status| status.pod_ip.as_deref()).unwrap_or_default();
        let url = format!("http://{address}:8080/metrics");
        self.run_node_command(&["exec", node_name(pod), "curl", "--silent", "--fail", "--noproxy", "*", &url])
            .await
    }

    /// Kills the first container of a pod, as a crash does.
    pub async fn kill_container(&self, pod: &Pod) -> Result<(), Failure> {
        let id = running_container_id(pod)?;
        self.run_node_command(&["exec", node_name(pod), "sh", "-c", KILL_CONTAINER_SCRIPT, "kill", &id])
            .await
            .map(drop)
    }

    /// Waits until a pod of the operator has made this number of successful reconciliations.
    pub(crate) async fn wait_reconciliations(&self, pod: &Pod, count: usize) -> Result<(), Failure> {
        eventually("the new operator has reconciled every Service", async || {
            let metrics = self.get_operator_metrics(pod).await?;
            let reconciliations = metrics.lines().find_map(|line| {
                line.strip_prefix(r#"akrobateo_reconciles_total{result="ok"} "#)?.parse::<usize>().ok()
            });
            ensure(reconciliations >= Some(count), || {
                format!(
                    "the operator has made {reconciliations:?} reconciliations, expected at least {count}"
                )
            })
        })
        .await
    }

    /// Flushes all nftables rules in a pod's network namespace, as another program could do.
    pub async fn flush_nftables_rules(&self, pod: &Pod) -> Result<(), Failure> {
        self.exec_in_pod_network(pod, &["nft", "flush", "ruleset"]).await.map(drop)
    }

    /// Returns all nftables rules in a pod's network namespace, without their counters.
    pub async fn list_nftables_rules(&self, pod: &Pod) -> Result<String, Failure> {
        self.exec_in_pod_network(pod, &["nft", "--stateless", "list", "ruleset"]).await
    }

    async fn exec_in_pod_network(&self, pod: &Pod, command: &[&str]) -> Result<String, Failure> {
        let id = running_container_id(pod)?;
        let words = ["exec", node_name(pod), "sh", "-c", EXEC_IN_POD_NETWORK_SCRIPT, "in-network", &id];
        self.run_node_command(&[&words, command].concat()).await
    }

    /// Waits until a node's kube-proxy has its rules for a TCP Service.
    ///
    /// The node does not translate the address of a connection that arrives before these rules exist. The conntrack
    /// entry of that connection also misroutes later connections from the same source port. Tests with thousands of
    /// connections reuse source ports.
    pub async fn wait_kube_proxy_synced(&self, node: &str, service: &Service) -> Result<(), Failure> {
        let spec = service.spec.clone().unwrap_or_default();
        let ip = spec.cluster_ip.unwrap_or_default();
        let port = spec.ports.iter().flatten().next().map_or(0, |port| port.port).to_string();
        eventually("the Service's ClusterIP answers on the node", async || {
            self.run_node_command(&["exec", node, &self.echo_path, "client", "tcp", &ip, &port])
                .await
                .map(drop)
        })
        .await
    }

    /// Sends one UDP datagram from each source port of a node.
    pub async fn flood_udp_from_node(&self, node: &str, server: SocketAddr) -> Result<(), Failure> {
        let (ip, port) = (server.ip().to_string(), server.port().to_string());
        self.run_node_command(&["exec", node, &self.echo_path, "flood", &ip, &port]).await.map(drop)
    }

    /// Returns /proc/PID/status of the process with this name on the pod's node.
    pub async fn get_process_status(&self, pod: &Pod, program: &str) -> Result<String, Failure> {
        self.run_node_command(&["exec", node_name(pod), "sh", "-c", PROCESS_STATUS_SCRIPT, "status", program])
            .await
    }

    /// Kills the process in an operator's pod, and deletes the pod, so that a new pod starts without a back-off.
    pub async fn crash_operator(&self, pod_name: &str) -> Result<(), Failure> {
        // A new leader may have the Lease before the kubelet reports that the leader's container runs.
        eventually("the process of the operator is killed", async || {
            self.kill_container(&self.operator.get_pod(pod_name).await?).await
        })
        .await?;
        self.operator.delete_pod(pod_name).await
    }

    /// Undoes all faults of the API server, the nodes and the operator.
    pub(crate) async fn undo_all_faults(&self) -> Result<(), Failure> {
        self.resume_api_server().await?;
        self.unthrottle_operator().await?;
        for name in [KUBE_PROXY_CONFIG_MAP, CILIUM_CONFIG_MAP] {
            if self.config_maps.get_opt(name).await?.is_some() {
                delete_if_exists(&self.config_maps, name, &DeleteParams::default()).await?;
                // A running operator reads these `ConfigMaps` only once a minute.
                self.operator.restart().await?;
            }
        }
        self.restore_reserved_ports().await?;
        for node in self.nodes.list(&ListParams::default()).await? {
            self.restore_node(&node).await?;
        }
        eventually("all nodes are ready", async || {
            let nodes = self.nodes.list(&ListParams::default()).await?;
            let unready_nodes: Vec<_> = nodes
                .iter()
                .filter(|node| !is_ready_and_untainted(node))
                .map(ResourceExt::name_any)
                .collect();
            ensure(unready_nodes.is_empty(), || format!("these nodes are not ready: {unready_nodes:?}"))
        })
        .await?;
        self.operator.start().await.map(drop)
    }

    async fn restore_node(&self, node: &Node) -> Result<(), Failure> {
        let name = node.name_any();
        self.reconnect_node(&name).await?;
        for label in [EXCLUDE_LABEL, POOL_LABEL] {
            if node.labels().contains_key(label) {
                self.set_label(&name, label, None).await?;
            }
        }
        if node.annotations().contains_key(NODE_ADDRESS) {
            self.override_addresses(&name, None).await?;
        }
        let mut addresses = node.status.iter().flat_map(|status| status.addresses.iter().flatten());
        if addresses.any(|address| address.type_ == EXTERNAL_IP) {
            self.remove_external_ip(&name).await?;
        }
        if taints(node).any(|taint| taint.key == DELETION_TAINT) {
            self.remove_deletion_taint(&name).await?;
        }
        if node.spec.as_ref().is_some_and(|spec| spec.unschedulable == Some(true)) {
            self.uncordon_node(&name).await?;
        }
        Ok(())
    }

    async fn set_label(&self, node: &str, label: &str, value: Option<&str>) -> Result<(), Failure> {
        self.patch_node(node, json!({ "metadata": { "labels": { label: value } } })).await
    }

    pub(crate) async fn patch_node(&self, node: &str, patch: serde_json::Value) -> Result<(), Failure> {
        self.nodes.patch(node, &PatchParams::default(), &Patch::Merge(patch)).await?;
        Ok(())
    }

    pub(crate) async fn run_node_command(&self, args: &[&str]) -> Result<String, Failure> {
        self.run_cluster_command("node", args).await
    }

    async fn run_cluster_command(&self, command: &str, args: &[&str]) -> Result<String, Failure> {
        let program = self.commands_directory.join(command).to_string_lossy().into_owned();
        let args = args.iter().map(|&arg| arg.to_owned());
        command::run([program].into_iter().chain(args).collect()).await
    }
}

fn taints(node: &Node) -> impl Iterator<Item = &Taint> {
    node.spec.iter().flat_map(|spec| spec.taints.iter().flatten())
}

/// Returns true if a node has the condition Ready and no taints.
fn is_ready_and_untainted(node: &Node) -> bool {
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let mut ready_conditions = conditions.filter(|condition| condition.type_ == "Ready");
    ready_conditions.any(|condition| condition.status == "True") && taints(node).next().is_none()
}

fn node_name(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default()
}

/// Returns the id of a pod's first container, without the runtime's prefix. The container must be running.
fn running_container_id(pod: &Pod) -> Result<String, Failure> {
    let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
    let container = statuses.and_then(|statuses| statuses.first());
    let is_running = |state: &ContainerState| state.running.is_some();
    let running_container = container.filter(|container| container.state.as_ref().is_some_and(is_running));
    let id = running_container.and_then(|container| container.container_id.as_deref()?.rsplit('/').next());
    id.map(str::to_owned)
        .ok_or_else(|| Failure::UnexpectedState(format!("pod {} has no running container", pod.name_any())))
}

//! What tests break, and how it is mended. Needs a cluster of ours. Does I/O.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use akrobateo_core::annotations::NODE_ADDRESS;
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod, Service, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::json;

use crate::cluster::Cluster;
use crate::operator::Operator;
use crate::throttle::{Throttle, delete};
use crate::{Failure, command, ensure, environment, eventually};

/// Keeps a node's addresses out of every status.
const EXCLUDE_LABEL: &str = "node.kubernetes.io/exclude-from-external-load-balancers";
/// A label of nodes that tests select by.
pub const POOL_LABEL: &str = "e2e.akrobateo.io/pool";
/// Set by the cluster autoscaler on a node that it is about to delete.
const LEAVING_TAINT: &str = "ToBeDeletedByClusterAutoscaler";
/// Namespace and name of the `ConfigMap` in which kubeadm keeps kube-proxy's configuration.
const KUBE_PROXY_CONFIG: (&str, &str) = ("kube-system", "kube-proxy");
/// Kills what runs in the container whose id it is given, from the node's own process namespace.
const KILL_CONTAINER: &str = r#"
for process in /proc/[0-9]*; do
  if grep -q "$1" "$process/cgroup" 2>/dev/null; then kill -KILL "${process#/proc/}" && killed=1; fi
done
[ -n "$killed" ]"#;

/// Runs the rest of its arguments in the network namespace of the container whose id is the first.
const IN_NETWORK: &str = r#"
id=$1; shift
for process in /proc/[0-9]*; do
  if grep -q "$id" "$process/cgroup" 2>/dev/null; then
    exec nsenter --target "${process#/proc/}" --net -- "$@"
  fi
done
exit 1"#;
/// Prints the status of the processes with the name that it is given.
const PROCESS_STATUS: &str = r#"
for process in /proc/[0-9]*; do
  if [ "$(cat "$process/comm" 2>/dev/null)" = "$1" ]; then cat "$process/status"; fi
done"#;

/// Breaks things in a cluster of ours.
pub struct Faults {
    /// The operator that is deployed there.
    pub operator: Operator,
    nodes: Api<Node>,
    config_maps: Api<ConfigMap>,
    throttle: Throttle,
    commands: PathBuf,
    echo: String,
}

impl Faults {
    pub(crate) fn of(cluster: &Cluster) -> Result<Self, Failure> {
        Ok(Self {
            operator: Operator::of(&cluster.client),
            nodes: Api::all(cluster.client.clone()),
            config_maps: Api::namespaced(cluster.client.clone(), KUBE_PROXY_CONFIG.0),
            throttle: Throttle::of(&cluster.client),
            commands: environment::CLUSTER.read()?.into(),
            echo: cluster.environment.echo.clone(),
        })
    }

    /// Cuts a node off from the network.
    pub async fn cut(&self, node: &str) -> Result<(), Failure> {
        self.node(&["cut", node]).await
    }

    /// Connects it again.
    pub async fn restore(&self, node: &str) -> Result<(), Failure> {
        self.node(&["restore", node]).await
    }

    /// Labels a node as one that clients must not be sent to.
    pub async fn exclude(&self, node: &str) -> Result<(), Failure> {
        self.label(node, EXCLUDE_LABEL, Some("")).await
    }

    /// Takes that label away.
    pub async fn include(&self, node: &str) -> Result<(), Failure> {
        self.label(node, EXCLUDE_LABEL, None).await
    }

    /// Puts a node into a pool, by the label [`POOL_LABEL`]; or into none.
    pub async fn pool(&self, node: &str, pool: Option<&str>) -> Result<(), Failure> {
        self.label(node, POOL_LABEL, pool).await
    }

    /// Says on a node which addresses are published in place of its own; or no longer.
    pub async fn publish_instead(&self, node: &str, addresses: Option<&str>) -> Result<(), Failure> {
        self.change(node, json!({ "metadata": { "annotations": { NODE_ADDRESS: addresses } } })).await
    }

    /// Announces that a node is about to be deleted, as the cluster autoscaler does; or takes that back.
    pub async fn to_be_deleted(&self, node: &str, really: bool) -> Result<(), Failure> {
        let taints =
            if really { json!([{ "key": LEAVING_TAINT, "effect": "NoSchedule" }]) } else { json!(null) };
        self.change(node, json!({ "spec": { "taints": taints } })).await
    }

    /// Says that kube-proxy runs in this mode, where kubeadm does.
    pub async fn kube_proxy_mode(&self, mode: &str) -> Result<(), Failure> {
        let (namespace, name) = KUBE_PROXY_CONFIG;
        let config = format!("kind: KubeProxyConfiguration\nmode: {mode}\n");
        let object = ConfigMap {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                namespace: Some(namespace.to_owned()),
                ..ObjectMeta::default()
            },
            data: Some(BTreeMap::from([("config.conf".to_owned(), config)])),
            ..ConfigMap::default()
        };
        self.config_maps.create(&PostParams::default(), &object).await?;
        Ok(())
    }

    /// Lets the API server answer requests of the operator's with 429 Too Many Requests, but for one at a time.
    pub async fn throttle_operator(&self) -> Result<(), Failure> {
        self.throttle.on().await
    }

    /// Ends that.
    pub async fn release_operator(&self) -> Result<(), Failure> {
        self.throttle.off().await
    }

    /// Makes the API server hang: connections stay open, and nothing is answered.
    pub async fn pause_api_server(&self) -> Result<(), Failure> {
        self.command("api-server", &["pause"]).await.map(drop)
    }

    /// Lets it go on.
    pub async fn resume_api_server(&self) -> Result<(), Failure> {
        self.command("api-server", &["resume"]).await.map(drop)
    }

    /// The metrics of a pod, as Prometheus gets them.
    pub async fn metrics(&self, pod: &Pod) -> Result<String, Failure> {
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default();
        let address = pod.status.as_ref().and_then(|status| status.pod_ip.as_deref()).unwrap_or_default();
        let url = format!("http://{address}:8080/metrics");
        self.command("node", &["exec", node, "curl", "--silent", "--fail", "--noproxy", "*", &url]).await
    }

    /// Kills the first container of a pod, as a crash does.
    pub async fn kill_container(&self, pod: &Pod) -> Result<(), Failure> {
        let (node, id) = container(pod)?;
        self.node(&["exec", node, "sh", "-c", KILL_CONTAINER, "kill", &id]).await
    }

    /// Removes all nftables rules of a pod's network, as a program does that takes them for its own.
    pub async fn flush_rules(&self, pod: &Pod) -> Result<(), Failure> {
        self.in_network(pod, &["nft", "flush", "ruleset"]).await.map(drop)
    }

    /// All nftables rules of a pod's network, without what they have counted.
    pub async fn rules(&self, pod: &Pod) -> Result<String, Failure> {
        self.in_network(pod, &["nft", "--stateless", "list", "ruleset"]).await
    }

    async fn in_network(&self, pod: &Pod, command: &[&str]) -> Result<String, Failure> {
        let (node, id) = container(pod)?;
        let words = ["exec", node, "sh", "-c", IN_NETWORK, "in-network", &id];
        self.command("node", &[&words, command].concat()).await
    }

    /// Waits until a node's kube-proxy has its rules for a TCP Service. A connection that comes before them leaves the
    /// node for nowhere, and the node's connection table sends whoever has the same source port after it, for as long
    /// as it sends: who opens thousands would meet it.
    pub async fn kube_proxy_knows(&self, node: &str, service: &Service) -> Result<(), Failure> {
        let spec = service.spec.clone().unwrap_or_default();
        let ip = spec.cluster_ip.unwrap_or_default();
        let port = spec.ports.iter().flatten().next().map_or(0, |port| port.port).to_string();
        eventually("the node itself reaches the Service", async || {
            self.node(&["exec", node, &self.echo, "client", "tcp", &ip, &port]).await
        })
        .await
    }

    /// Begins as many flows of datagrams as a node can.
    pub async fn flood(&self, node: &str, server: SocketAddr) -> Result<(), Failure> {
        let (ip, port) = (server.ip().to_string(), server.port().to_string());
        self.node(&["exec", node, &self.echo, "flood", &ip, &port]).await
    }

    /// /proc/PID/status of the program of this name that runs in a pod.
    pub async fn process_status(&self, pod: &Pod, program: &str) -> Result<String, Failure> {
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default();
        self.command("node", &["exec", node, "sh", "-c", PROCESS_STATUS, "status", program]).await
    }

    /// Kills a process of the operator's without warning, and removes its pod, so that another one comes at once.
    pub async fn crash_operator(&self, pod: &str) -> Result<(), Failure> {
        self.kill_container(&self.operator.pod(pod).await?).await?;
        self.operator.end_pod(pod).await
    }

    /// Mends whatever may be broken: the API server, nodes, and the operator.
    pub(crate) async fn mend(&self) -> Result<(), Failure> {
        self.resume_api_server().await?;
        self.release_operator().await?;
        if self.config_maps.get_opt(KUBE_PROXY_CONFIG.1).await?.is_some() {
            delete(&self.config_maps, KUBE_PROXY_CONFIG.1).await?;
            // It is read at the start only.
            self.operator.restart().await?;
        }
        for node in self.nodes.list(&ListParams::default()).await? {
            let name = node.name_any();
            self.restore(&name).await?;
            for label in [EXCLUDE_LABEL, POOL_LABEL] {
                if node.labels().contains_key(label) {
                    self.label(&name, label, None).await?;
                }
            }
            if node.annotations().contains_key(NODE_ADDRESS) {
                self.publish_instead(&name, None).await?;
            }
            if taints(&node).any(|taint| taint.key == LEAVING_TAINT) {
                self.to_be_deleted(&name, false).await?;
            }
        }
        eventually("all nodes are ready", async || {
            let nodes = self.nodes.list(&ListParams::default()).await?;
            let lost: Vec<_> =
                nodes.iter().filter(|node| !is_well(node)).map(ResourceExt::name_any).collect();
            ensure(lost.is_empty(), || format!("not ready: {lost:?}"))
        })
        .await?;
        self.operator.start().await.map(drop)
    }

    async fn label(&self, node: &str, label: &str, value: Option<&str>) -> Result<(), Failure> {
        self.change(node, json!({ "metadata": { "labels": { label: value } } })).await
    }

    async fn change(&self, node: &str, change: serde_json::Value) -> Result<(), Failure> {
        self.nodes.patch(node, &PatchParams::default(), &Patch::Merge(change)).await?;
        Ok(())
    }

    async fn node(&self, args: &[&str]) -> Result<(), Failure> {
        self.command("node", args).await.map(drop)
    }

    async fn command(&self, command: &str, args: &[&str]) -> Result<String, Failure> {
        let program = self.commands.join(command).to_string_lossy().into_owned();
        let args = args.iter().map(|&arg| arg.to_owned());
        command::run([program].into_iter().chain(args).collect()).await
    }
}

fn taints(node: &Node) -> impl Iterator<Item = &Taint> {
    node.spec.iter().flat_map(|spec| spec.taints.iter().flatten())
}

fn is_well(node: &Node) -> bool {
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let mut ready = conditions.filter(|condition| condition.type_ == "Ready");
    ready.any(|condition| condition.status == "True") && taints(node).next().is_none()
}

/// The node of a pod, and the id of its first container, which must run.
fn container(pod: &Pod) -> Result<(&str, String), Failure> {
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default();
    let id = container_id(pod).unwrap_or_default();
    ensure(!id.is_empty(), || format!("{} has no running container", pod.name_any()))?;
    Ok((node, id))
}

/// Without the runtime's name in front of it.
fn container_id(pod: &Pod) -> Option<String> {
    let container = pod.status.as_ref()?.container_statuses.as_ref()?.first()?;
    container.state.as_ref()?.running.as_ref()?;
    Some(container.container_id.as_ref()?.rsplit('/').next()?.to_owned())
}

//! What tests break, and how it is mended. Needs a cluster of ours. Does I/O.

use std::path::PathBuf;

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::json;

use crate::cluster::Cluster;
use crate::operator::Operator;
use crate::{Failure, command, ensure, environment, eventually};

/// Keeps a node's addresses out of every status.
const EXCLUDE_LABEL: &str = "node.kubernetes.io/exclude-from-external-load-balancers";
/// Kills what runs in the container whose id it is given, from the node's own process namespace.
const KILL_CONTAINER: &str = r#"
for process in /proc/[0-9]*; do
  if grep -q "$1" "$process/cgroup" 2>/dev/null; then kill -KILL "${process#/proc/}" && killed=1; fi
done
[ -n "$killed" ]"#;

/// Breaks things in a cluster of ours.
pub struct Faults {
    /// The operator that is deployed there.
    pub operator: Operator,
    nodes: Api<Node>,
    commands: PathBuf,
}

impl Faults {
    pub(crate) fn of(cluster: &Cluster) -> Result<Self, Failure> {
        Ok(Self {
            operator: Operator::of(&cluster.client),
            nodes: Api::all(cluster.client.clone()),
            commands: environment::CLUSTER.read()?.into(),
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
        self.label(node, Some("")).await
    }

    /// Takes that label away.
    pub async fn include(&self, node: &str) -> Result<(), Failure> {
        self.label(node, None).await
    }

    /// Kills the first container of a pod, as a crash does.
    pub async fn kill_container(&self, pod: &Pod) -> Result<(), Failure> {
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default();
        let id = container_id(pod).unwrap_or_default();
        ensure(!id.is_empty(), || format!("{} has no running container", pod.name_any()))?;
        self.node(&["exec", node, "sh", "-c", KILL_CONTAINER, "kill", &id]).await
    }

    /// Mends whatever may be broken: nodes cut off or excluded, and the operator away.
    pub(crate) async fn mend(&self) -> Result<(), Failure> {
        for node in self.nodes.list(&ListParams::default()).await? {
            self.restore(&node.name_any()).await?;
            if node.labels().contains_key(EXCLUDE_LABEL) {
                self.include(&node.name_any()).await?;
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

    async fn label(&self, node: &str, value: Option<&str>) -> Result<(), Failure> {
        let patch = Patch::Merge(json!({ "metadata": { "labels": { EXCLUDE_LABEL: value } } }));
        self.nodes.patch(node, &PatchParams::default(), &patch).await?;
        Ok(())
    }

    async fn node(&self, args: &[&str]) -> Result<(), Failure> {
        let program = self.commands.join("node").to_string_lossy().into_owned();
        let args = args.iter().map(|&arg| arg.to_owned());
        command::run([program].into_iter().chain(args).collect()).await
    }
}

fn is_well(node: &Node) -> bool {
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let mut ready = conditions.filter(|condition| condition.type_ == "Ready");
    ready.any(|condition| condition.status == "True")
        && node.spec.as_ref().and_then(|spec| spec.taints.as_ref()).is_none_or(Vec::is_empty)
}

/// Without the runtime's name in front of it.
fn container_id(pod: &Pod) -> Option<String> {
    let container = pod.status.as_ref()?.container_statuses.as_ref()?.first()?;
    container.state.as_ref()?.running.as_ref()?;
    Some(container.container_id.as_ref()?.rsplit('/').next()?.to_owned())
}

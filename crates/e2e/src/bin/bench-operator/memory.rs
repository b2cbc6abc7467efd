//! Reads the memory of Akrobateo's processes. Does I/O.

use e2e::{Failure, Faults, Namespace};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::ListParams;

/// The processes on a node: the agent, the proxies, and for each pod the process of the container runtime. The kernel
/// limits the name of a process to 15 bytes.
const NODE_PROCESSES: [&str; 2] = ["akrobateo-agent", "akrobateo-lb"];
const CONTAINER_RUNTIME_PROCESS: &str = "containerd-shim";

/// Returns the resident set size of the operator as a text.
pub(crate) async fn read_operator_memory(faults: &Faults) -> Result<String, Failure> {
    let status = faults.get_process_status(&faults.operator.wait_ready().await?, "akrobateo").await?;
    Ok(format!("{:6} kB", sum_resident_kilobytes(&status)))
}

/// Returns the memory of all agents and proxies on a node as a text, and the memory of the runtime's processes for all
/// pods of the node.
pub(crate) async fn read_node_memory(
    namespace: &Namespace,
    faults: &Faults,
    node: &str,
) -> Result<String, Failure> {
    let pods: Api<Pod> = Api::all(namespace.cluster().client.clone());
    let pods_on_node = ListParams::default().fields(&format!("spec.nodeName={node}"));
    let pods = pods.list(&pods_on_node).await?.items;
    let pod = pods.first().ok_or_else(|| Failure::UnexpectedState(format!("node {node} has no pod")))?;
    let mut kilobytes = 0;
    for process in NODE_PROCESSES {
        kilobytes += sum_resident_kilobytes(&faults.get_process_status(pod, process).await?);
    }
    let runtime_kilobytes =
        sum_resident_kilobytes(&faults.get_process_status(pod, CONTAINER_RUNTIME_PROCESS).await?);
    Ok(format!("{kilobytes:6} kB (and {runtime_kilobytes} kB of the container runtime)"))
}

/// Returns the sum of the resident set sizes in the status of processes (`proc_pid_status(5)`).
fn sum_resident_kilobytes(process_statuses: &str) -> u64 {
    let sizes = process_statuses
        .lines()
        .filter_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next()?.parse::<u64>().ok());
    sizes.sum()
}

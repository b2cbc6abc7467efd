//! Tests of an agent that starts while the API server is unavailable.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use akrobateo_core::{Family, Protocol};
use netns_testkit::laboratory::Options;
use netns_testkit::{eventually, http, isolated};

use crate::agent::{check_deletions, endpoint_sees_client_address, start_agent};
use crate::cluster::{Cluster, ClusterMode, SERVICE_PORT, pod_endpoints, service};

/// A kubeconfig with a server that does not exist.
const KUBECONFIG: &str = r#"{
  "apiVersion": "v1", "kind": "Config", "current-context": "absent",
  "clusters": [{ "name": "absent", "cluster": { "server": "http://127.0.0.1:1" } }],
  "users": [{ "name": "absent", "user": {} }],
  "contexts": [{ "name": "absent", "context": { "cluster": "absent", "user": "absent" } }]
}"#;

/// The timeout of a request to the HTTP server of the agent.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(1);

/// A process of the agent, which is killed at the end of the test.
struct AgentProcess(Child);

impl Drop for AgentProcess {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Creates a cluster with an endpoint on node 2. Saves the configuration of node 2 in the directory.
fn cluster_with_saved_config(directory: &Path) -> Cluster {
    let mut cluster = Cluster::new(&Options::default(), ClusterMode { path: None, has_egress_hook: true });
    cluster.services = vec![service(SERVICE_PORT, &pod_endpoints(&cluster.laboratory, 2, 1))];
    std::fs::create_dir_all(directory).unwrap();
    std::fs::write(directory.join("kubeconfig"), KUBECONFIG).unwrap();
    std::fs::write(directory.join("config.json"), cluster.config(2).to_json().unwrap()).unwrap();
    cluster
}

/// Starts the agent of node 2, and waits until its HTTP server answers.
fn start_process(cluster: &Cluster, directory: &Path) -> AgentProcess {
    let mut command = Command::new(env!("CARGO_BIN_EXE_akrobateo-agent"));
    command.args(["run", "--node-name", "node2", "--kubeconfig"]).arg(directory.join("kubeconfig"));
    command.arg("--state-file").arg(directory.join("config.json")).stdin(Stdio::null());
    let namespace = &cluster.laboratory.node(2).namespace;
    let process = AgentProcess(namespace.run(|| command.spawn().unwrap()));
    eventually("the agent has started", || {
        let status = namespace.run(|| http::status("127.0.0.1:8478", "/healthz", REQUEST_TIMEOUT));
        (status == Some(200)).then_some(())
    });
    process
}

fn temporary_directory(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("akrobateo-{name}-{}", std::process::id()))
}

#[test]
fn restarted_agent_maintains_its_rules_without_the_api_server() {
    isolated(|| {
        let directory = temporary_directory("adoption");
        let cluster = cluster_with_saved_config(&directory);
        let _agent_of_node_1 = start_agent(&cluster, 1);
        // An earlier process of the agent has installed the rules.
        cluster.apply(2, &cluster.config(2));
        let _process = start_process(&cluster, &directory);
        // Node 1 keeps the client's address only if the agent of node 2 answers the probes of node 1.
        eventually("the endpoint sees the client", || endpoint_sees_client_address(&cluster).then_some(()));
        let deletion = (
            "nft delete table inet akrobateo",
            "nft get element inet akrobateo own_destinations4 { 10.244.2.10 }",
        );
        check_deletions(&cluster, 2, &[&[deletion]]);
        let answer = cluster.request(&cluster.laboratory.client, Protocol::Tcp, Family::V4, 2);
        assert_eq!(answer.unwrap().backend, "n2p1");
        std::fs::remove_dir_all(directory).unwrap();
    });
}

#[test]
fn restarted_node_does_not_use_its_last_configuration() {
    isolated(|| {
        let directory = temporary_directory("restarted-node");
        let cluster = cluster_with_saved_config(&directory);
        let process = start_process(&cluster, &directory);
        drop(process);
        let tables = cluster.laboratory.node(2).namespace.nft("list tables");
        assert!(!tables.contains("akrobateo"), "{tables}");
        std::fs::remove_dir_all(directory).unwrap();
    });
}

//! Runs etcd, API server and controller manager on the loopback address. Does I/O.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use api_client::{ConnectOptions, connect};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::{Api, Client};
use serde_json::json;
use tokio::time::sleep;

use super::credentials::{ADMIN_TOKEN, API_PORT, write_kubeconfig};
use crate::error::{Context, ScaleError};
use crate::program::{Program, Usage, run_command};

/// The time within which the API server must answer, and the `ServiceAccounts` must exist.
const START_TIMEOUT: Duration = Duration::from_mins(1);
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// The account of the operator in the audit log.
pub(crate) const OPERATOR_USER: &str = "system:serviceaccount:kube-system:akrobateo";
/// The controllers that would react to missing machines: no kubelet renews the nodes, and no scheduler places the pods
/// of the operator and of the agents.
const DISABLED_CONTROLLERS: &str =
    "*,-node-lifecycle-controller,-deployment-controller,-daemonset-controller";

/// The control plane of one cluster. Its programs are killed when the value is dropped.
pub(crate) struct ControlPlane {
    /// A client with all rights.
    pub(crate) client: Client,
    directory: PathBuf,
    controller_manager: Program,
    api_server: Program,
    etcd: Program,
}

/// The binaries of the control plane.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Binaries<'a> {
    /// The binary with all Kubernetes programs.
    pub(crate) kubernetes: &'a Path,
    /// The binary of etcd.
    pub(crate) etcd: &'a Path,
}

impl ControlPlane {
    /// Starts the control plane, and applies the manifests of Akrobateo. `directory` gets all files.
    pub(crate) async fn start(
        binaries: Binaries<'_>,
        manifests: &Path,
        directory: &Path,
    ) -> Result<Self, ScaleError> {
        write_configuration(directory)?;
        let mut etcd = Program::start("etcd", &mut etcd_command(binaries.etcd, directory), directory)?;
        let mut command = api_server_command(binaries.kubernetes, directory);
        let mut api_server = Program::start("kube-apiserver", &mut command, directory)?;
        let certificate = directory.join("certificates/apiserver.crt");
        let deadline = Instant::now() + START_TIMEOUT;
        while !certificate.exists() && Instant::now() < deadline {
            api_server.check()?;
            sleep(POLL_INTERVAL).await;
        }
        let kubeconfig = directory.join("admin.kubeconfig");
        write_kubeconfig(directory, &kubeconfig, ADMIN_TOKEN)?;
        let options = ConnectOptions { kubeconfig: Some(kubeconfig.clone()), context: None };
        let (client, _) = connect(&options).await?;
        while !is_ready(&client).await {
            etcd.check()?;
            api_server.check()?;
            check_deadline(deadline, "the API server to become ready")?;
            sleep(POLL_INTERVAL).await;
        }
        let mut command = controller_manager_command(binaries.kubernetes, directory, &kubeconfig);
        let controller_manager = Program::start("kube-controller-manager", &mut command, directory)?;
        let mut control_plane =
            Self { client, directory: directory.to_owned(), controller_manager, api_server, etcd };
        control_plane.wait_for_namespace(deadline).await?;
        apply_manifests(binaries.kubernetes, &kubeconfig, directory, manifests)?;
        Ok(control_plane)
    }

    /// Waits until the controllers have created the first objects of the namespace kube-system.
    async fn wait_for_namespace(&mut self, deadline: Instant) -> Result<(), ScaleError> {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), "kube-system");
        while !matches!(accounts.get_opt("default").await, Ok(Some(_))) {
            self.check()?;
            check_deadline(deadline, "the ServiceAccount kube-system/default")?;
            sleep(POLL_INTERVAL).await;
        }
        Ok(())
    }

    /// Returns an error if a program of the control plane has ended.
    pub(crate) fn check(&mut self) -> Result<(), ScaleError> {
        self.etcd.check()?;
        self.api_server.check()?;
        self.controller_manager.check()
    }

    /// Reads the CPU time and the memory of API server and etcd.
    pub(crate) fn usage(&self) -> Result<[Usage; 2], ScaleError> {
        Ok([self.api_server.usage()?, self.etcd.usage()?])
    }

    /// Returns the path of the audit log, which has the requests of the operator.
    pub(crate) fn audit_log(&self) -> PathBuf {
        self.directory.join("audit.log")
    }
}

async fn is_ready(client: &Client) -> bool {
    let Ok(request) = http::Request::get("/readyz").body(Vec::new()) else { return false };
    client.request_text(request).await.is_ok()
}

fn check_deadline(deadline: Instant, expected: &str) -> Result<(), ScaleError> {
    if Instant::now() < deadline {
        return Ok(());
    }
    let expected = expected.to_owned();
    Err(ScaleError::Timeout { expected, found: "nothing".to_owned(), limit: START_TIMEOUT })
}

fn write_configuration(directory: &Path) -> Result<(), ScaleError> {
    let write = |name: &str, text: String| fs::write(directory.join(name), text).context(name);
    write("tokens.csv", format!("{ADMIN_TOKEN},admin,admin,system:masters\n"))?;
    let policy = json!({
        "apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived", "ResponseStarted", "Panic"],
        "rules": [
            { "level": "Metadata", "users": [OPERATOR_USER], "verbs": ["create", "update", "patch", "delete"] },
            { "level": "None" },
        ],
    });
    write("audit-policy.yaml", policy.to_string())?;
    for arguments in [
        &["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", "accounts.key"][..],
        &["ec", "-in", "accounts.key", "-pubout", "-out", "accounts.pub"],
    ] {
        run_command(Command::new("openssl").args(arguments).current_dir(directory))?;
    }
    Ok(())
}

fn etcd_command(binary: &Path, directory: &Path) -> Command {
    let mut command = Command::new(binary);
    command
        .arg(format!("--data-dir={}", directory.join("etcd").display()))
        .args(["--unsafe-no-fsync", "--log-level=warn", "--quota-backend-bytes=8589934592"])
        .args(["--listen-client-urls=http://127.0.0.1:2379", "--advertise-client-urls=http://127.0.0.1:2379"])
        .args(["--listen-peer-urls=http://127.0.0.1:2380"]);
    command
}

fn api_server_command(binary: &Path, directory: &Path) -> Command {
    let path = |flag: &str, name: &str| format!("--{flag}={}", directory.join(name).display());
    let mut command = Command::new(binary);
    command
        .args(["kube-apiserver", "--etcd-servers=http://127.0.0.1:2379", "--bind-address=127.0.0.1"])
        // The API server refuses a loopback address here. Nothing uses this address.
        .args([format!("--secure-port={API_PORT}"), "--advertise-address=192.0.2.1".to_owned()])
        .args(["--service-cluster-ip-range=10.96.0.0/12", "--authorization-mode=RBAC"])
        .args(["--service-account-issuer=https://kubernetes.default.svc", "--allow-privileged=true"])
        .args([
            path("cert-dir", "certificates"),
            path("token-auth-file", "tokens.csv"),
            path("service-account-key-file", "accounts.pub"),
            path("service-account-signing-key-file", "accounts.key"),
            path("audit-policy-file", "audit-policy.yaml"),
            path("audit-log-path", "audit.log"),
        ]);
    command
}

fn controller_manager_command(binary: &Path, directory: &Path, kubeconfig: &Path) -> Command {
    let mut command = Command::new(binary);
    command
        .args(["kube-controller-manager", "--leader-elect=false", "--bind-address=127.0.0.1"])
        .arg(format!("--controllers={DISABLED_CONTROLLERS}"))
        .arg(format!("--kubeconfig={}", kubeconfig.display()))
        .arg(format!("--service-account-private-key-file={}", directory.join("accounts.key").display()))
        .arg(format!("--cert-dir={}", directory.join("certificates").display()))
        .arg("--flex-volume-plugin-dir=/run/flex-volumes");
    command
}

fn apply_manifests(
    kubernetes: &Path,
    kubeconfig: &Path,
    directory: &Path,
    manifests: &Path,
) -> Result<(), ScaleError> {
    let mut command = Command::new(kubernetes);
    command.args(["kubectl", "apply", "--server-side"]);
    command.arg(format!("--kubeconfig={}", kubeconfig.display()));
    command.arg(format!("--cache-dir={}", directory.join("kubectl").display()));
    run_command(command.arg("--kustomize").arg(manifests))
}

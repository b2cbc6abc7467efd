//! A running cluster with the operator and the agents, and its Services. Does I/O.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use akrobateo_services::agent_report::{AGENT_LABEL, AgentReport};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Namespace, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{ListParams, PostParams};
use kube::{Api, Client, ResourceExt};
use tokio::time::sleep;

use crate::agents::{HollowAgents, start_real_agent};
use crate::cli::MeasurementOptions;
use crate::cluster::{Binaries, ControlPlane, create_nodes, issue_tokens};
use crate::endpoint_changes::EndpointChanger;
use crate::error::{Context, ScaleError};
use crate::objects::NAMESPACE;
use crate::operator::{read_progress, start_operator};
use crate::program::Program;
use crate::prometheus::Samples;
use crate::service_client::ServiceClient;
use crate::service_watch::ServiceWatch;
use crate::size::Size;

/// The time limit of each wait. A measurement that takes longer has failed.
pub(crate) const TIME_LIMIT: Duration = Duration::from_mins(10);
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// A running cluster.
pub(crate) struct Testbed {
    pub(crate) size: Size,
    pub(crate) control_plane: ControlPlane,
    pub(crate) operator: Program,
    pub(crate) hollow_agents: HollowAgents,
    /// The agent of the last node.
    pub(crate) real_agent: Program,
    pub(crate) watch: ServiceWatch,
    pub(crate) services: ServiceClient,
    pub(crate) changer: EndpointChanger,
    options: MeasurementOptions,
    directory: PathBuf,
}

impl Testbed {
    /// Starts a cluster without Services. Waits until the operator leads, and until all agents report.
    pub(crate) async fn start(
        options: &MeasurementOptions,
        size: Size,
        directory: &Path,
    ) -> Result<Self, ScaleError> {
        fs::create_dir_all(directory).context(&directory.display().to_string())?;
        let binaries = Binaries { kubernetes: &options.kubernetes, etcd: &options.etcd };
        let control_plane = ControlPlane::start(binaries, &options.manifests, directory).await?;
        let client = control_plane.client.clone();
        create_nodes(&client, size.nodes).await?;
        issue_tokens(&client, directory, size.nodes).await?;
        create_namespace(&client).await?;
        let mut testbed = Self {
            size,
            operator: start_operator(&options.operator, directory)?,
            hollow_agents: HollowAgents::start(directory, size.nodes - 1)?,
            real_agent: start_real_agent(&options.agent, directory, size.nodes - 1)?,
            watch: ServiceWatch::start(&client, size.nodes),
            services: ServiceClient::new(&client, size.nodes),
            changer: EndpointChanger::new(&client, size),
            options: options.clone(),
            directory: directory.to_owned(),
            control_plane,
        };
        testbed.wait_for_agents(SystemTime::UNIX_EPOCH).await?;
        testbed.wait_for_leader().await?;
        Ok(testbed)
    }

    /// Returns an error if a program has ended.
    pub(crate) fn check(&mut self) -> Result<(), ScaleError> {
        self.control_plane.check()?;
        self.operator.check()?;
        self.hollow_agents.program.check()?;
        self.real_agent.check()
    }

    /// Waits until the operator holds the Lease.
    pub(crate) async fn wait_for_leader(&mut self) -> Result<(), ScaleError> {
        let deadline = Instant::now() + TIME_LIMIT;
        while !read_progress().is_leader {
            self.check()?;
            check_deadline(deadline, "the operator to hold its Lease", || "no leader".to_owned())?;
            sleep(POLL_INTERVAL).await;
        }
        Ok(())
    }

    /// Waits until all agents have renewed their Leases after `start`, and their rules contain all objects.
    pub(crate) async fn wait_for_agents(&mut self, start: SystemTime) -> Result<(), ScaleError> {
        let deadline = Instant::now() + TIME_LIMIT;
        let leases: Api<Lease> = Api::namespaced(self.client(), "kube-system");
        let (services, slices) = self.newest_versions().await?;
        loop {
            let list = leases
                .list(&ListParams::default().labels(AGENT_LABEL))
                .await
                .context("listing the Leases")?;
            let count = list.items.iter().filter(|it| is_current(it, start, services, slices)).count();
            if count == self.size.nodes {
                return Ok(());
            }
            self.check()?;
            check_deadline(deadline, "current reports of all agents", || {
                format!("{count} of {} reports", self.size.nodes)
            })?;
            sleep(POLL_INTERVAL).await;
        }
    }

    /// Returns the newest resourceVersions of Services and of `EndpointSlices`. Omits the version of the Service
    /// `kubernetes`, because the agents do not know when its last change was.
    async fn newest_versions(&self) -> Result<(u64, u64), ScaleError> {
        let version = |text: Option<String>| text.and_then(|text| text.parse().ok()).unwrap_or_default();
        let services: Api<Service> = Api::namespaced(self.client(), NAMESPACE);
        let list = services.list(&ListParams::default()).await.context("listing the Services")?;
        let service_version = list.items.into_iter().map(|it| version(it.resource_version())).max();
        let slices: Api<EndpointSlice> = Api::namespaced(self.client(), NAMESPACE);
        let list = slices.list(&ListParams::default()).await.context("listing the EndpointSlices")?;
        let slice_version = list.items.into_iter().map(|it| version(it.resource_version())).max();
        Ok((service_version.unwrap_or_default(), slice_version.unwrap_or_default()))
    }

    /// Restarts the process of the hollow agents, and returns the time of the start.
    pub(crate) fn restart_hollow_agents(&mut self) -> Result<SystemTime, ScaleError> {
        self.hollow_agents.program.stop()?;
        let started_at = SystemTime::now();
        self.hollow_agents = HollowAgents::start(&self.directory, self.size.nodes - 1)?;
        Ok(started_at)
    }

    /// Restarts the operator, and returns the time of the start.
    pub(crate) fn restart_operator(&mut self) -> Result<Instant, ScaleError> {
        self.operator.stop()?;
        let started_at = Instant::now();
        self.operator = start_operator(&self.options.operator, &self.directory)?;
        Ok(started_at)
    }

    /// Kills the real agent without a signal that it could handle.
    pub(crate) fn kill_real_agent(&mut self) {
        self.real_agent.kill();
    }

    /// Reads the metrics of the API server.
    pub(crate) async fn api_metrics(&self) -> Result<Samples, ScaleError> {
        let request = http::Request::get("/metrics").body(Vec::new());
        let request = request.map_err(kube::Error::HttpError).context("the request for metrics")?;
        let text = self.client().request_text(request).await.context("reading the API server's metrics")?;
        Ok(Samples::parse(&text))
    }

    fn client(&self) -> Client {
        self.control_plane.client.clone()
    }
}

async fn create_namespace(client: &Client) -> Result<(), ScaleError> {
    let mut namespace = Namespace::default();
    namespace.metadata.name = Some(NAMESPACE.to_owned());
    let api: Api<Namespace> = Api::all(client.clone());
    api.create(&PostParams::default(), &namespace).await.context("creating the namespace").map(drop)
}

/// Returns true if the agent has renewed the Lease after `start`, and its rules contain objects with these versions.
fn is_current(lease: &Lease, start: SystemTime, service_version: u64, slice_version: u64) -> bool {
    let renew_time = lease.spec.as_ref().and_then(|spec| spec.renew_time.as_ref());
    let Some(Ok(report)) = AgentReport::from_lease(lease) else { return false };
    renew_time.is_some_and(|time| SystemTime::from(time.0) > start)
        && !report.is_paused
        && report.has_applied(service_version, slice_version)
}

/// Returns an error if the deadline of a wait has passed.
pub(crate) fn check_deadline(
    deadline: Instant,
    expected: &str,
    found: impl FnOnce() -> String,
) -> Result<(), ScaleError> {
    if Instant::now() < deadline {
        return Ok(());
    }
    Err(ScaleError::Timeout { expected: expected.to_owned(), found: found(), limit: TIME_LIMIT })
}

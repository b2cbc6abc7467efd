//! Injects the scheduled faults. Does I/O.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use e2e::{Failure, Faults, ensure, ensure_eq, eventually, eventually_within, restart_count};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use tokio::time::{Instant, sleep, sleep_until};

use crate::connectivity::{Connectivity, RequestLog};
use crate::schedule::{Fault, ScheduledFault, StopMethod, StoppedAgent};

/// The maximum time until an agent reports again. The kubelet delays the start of a container that crashes repeatedly.
const REPORT_DEADLINE: Duration = Duration::from_mins(2);
/// The maximum time from the end of a cut until the node answers all requests again, and its agent reports again.
const RECOVERY_DEADLINE: Duration = Duration::from_secs(90);

/// Injects faults, and records the crashes.
pub(crate) struct FaultInjector<'a> {
    faults: &'a Faults,
    node_names: &'a [String],
    request_log: &'a RequestLog,
    /// The number of crashes in the current pod of each agent.
    crashes: RefCell<BTreeMap<StoppedAgent, i32>>,
    fault_counts: RefCell<BTreeMap<&'static str, u32>>,
}

impl<'a> FaultInjector<'a> {
    pub(crate) fn new(faults: &'a Faults, node_names: &'a [String], request_log: &'a RequestLog) -> Self {
        Self {
            faults,
            node_names,
            request_log,
            crashes: RefCell::default(),
            fault_counts: RefCell::default(),
        }
    }

    /// Injects the faults at their times, and undoes each of them.
    pub(crate) async fn run(&self, schedule: &[ScheduledFault], phase_start: Instant) -> Result<(), Failure> {
        for ScheduledFault { start, fault } in schedule {
            sleep_until(phase_start + *start).await;
            let elapsed = phase_start.elapsed().as_secs();
            println!("{}: fault after {elapsed} s: {fault}", Timestamp::now());
            self.inject(*fault).await.map_err(|failure| {
                Failure::UnexpectedState(format!("during the fault {fault:?}: {failure}"))
            })?;
        }
        Ok(())
    }

    /// Checks that only faults have restarted the containers of the agents.
    pub(crate) async fn ensure_no_other_restart(&self) -> Result<(), Failure> {
        for (index, node) in self.node_names.iter().enumerate() {
            let agents = [None, Some(StoppedAgent::OfSecondNode), Some(StoppedAgent::OfThirdNode)];
            let crashes = agents[index].and_then(|agent| self.crashes.borrow().get(&agent).copied());
            let pod = self.faults.agents.get_pod_on_node(node).await?;
            let name = format!("restarts of the agent of {node}");
            ensure_eq(&name, &restart_count(&pod), &crashes.unwrap_or_default())?;
        }
        Ok(())
    }

    /// Returns the number of faults of each kind for the summary.
    pub(crate) fn describe(&self) -> String {
        let counts = self.fault_counts.borrow();
        counts.iter().map(|(kind, count)| format!("{kind}: {count}")).collect::<Vec<_>>().join(", ")
    }

    async fn inject(&self, fault: Fault) -> Result<(), Failure> {
        let kind = match fault {
            Fault::StopAgent(..) => "stopped agents",
            Fault::StopOperator(_) => "stopped operators",
            Fault::PauseApiServer(..) => "pauses of the API server",
            Fault::CutThirdNode(..) => "cuts of a node",
        };
        *self.fault_counts.borrow_mut().entry(kind).or_default() += 1;
        match fault {
            Fault::StopAgent(agent, method) => self.stop_agent(agent, method).await,
            Fault::StopOperator(method) => self.stop_operator(method).await,
            Fault::PauseApiServer(duration, agent) => self.pause_api_server(duration, agent).await,
            Fault::CutThirdNode(duration, agent) => self.cut_third_node(duration, agent).await,
        }
    }

    async fn stop_agent(&self, agent: StoppedAgent, method: StopMethod) -> Result<(), Failure> {
        let mut pod = self.get_agent(agent).await?;
        if method != StopMethod::Delete {
            // The container does not run while the kubelet delays its start after an earlier crash.
            eventually_within(REPORT_DEADLINE, "the process of the agent is killed", async || {
                pod = self.get_agent(agent).await?;
                self.crash_agent(agent, &pod).await
            })
            .await?;
        }
        if method != StopMethod::Crash {
            self.faults.agents.delete_pod(&pod).await?;
            self.crashes.borrow_mut().remove(&agent);
        }
        self.wait_report(agent, Timestamp::now()).await
    }

    async fn stop_operator(&self, method: StopMethod) -> Result<(), Failure> {
        let leader = self.faults.operator.wait_leader().await?;
        if method == StopMethod::Delete {
            self.faults.operator.delete_pod(&leader).await?;
        } else {
            self.faults.crash_operator(&leader).await?;
        }
        self.faults.operator.wait_leader_other_than(&leader).await?;
        self.faults.operator.wait_ready().await.map(drop)
    }

    async fn pause_api_server(&self, duration: Duration, agent: Option<StoppedAgent>) -> Result<(), Failure> {
        let pod = self.get_optional_agent(agent).await?;
        self.faults.pause_api_server().await?;
        self.wait_and_crash_agent(duration, agent.zip(pod)).await?;
        let resumed_at = Timestamp::now();
        self.faults.resume_api_server().await?;
        for agent in [StoppedAgent::OfSecondNode, StoppedAgent::OfThirdNode] {
            self.wait_report(agent, resumed_at).await?;
        }
        Ok(())
    }

    async fn cut_third_node(&self, duration: Duration, agent: Option<StoppedAgent>) -> Result<(), Failure> {
        let node = self.node_name(StoppedAgent::OfThirdNode);
        let pod = self.get_optional_agent(agent).await?;
        self.request_log.set_connectivity(Connectivity::Cut);
        self.faults.disconnect_node(node).await?;
        self.wait_and_crash_agent(duration, agent.zip(pod)).await?;
        let reconnected_at = Timestamp::now();
        self.faults.reconnect_node(node).await?;
        let recovery_start = Instant::now();
        self.request_log.set_connectivity(Connectivity::Recovering(recovery_start));
        eventually_within(RECOVERY_DEADLINE, "the node answers all requests after the cut", async || {
            self.request_log.ensure_answers_again()?;
            self.ensure_reported_after(node, reconnected_at).await
        })
        .await?;
        self.request_log.set_connectivity(Connectivity::Connected);
        println!("the node recovered {:.1} s after the cut", recovery_start.elapsed().as_secs_f32());
        Ok(())
    }

    /// Waits for the duration of a fault. An agent may crash in the middle.
    async fn wait_and_crash_agent(
        &self,
        duration: Duration,
        agent: Option<(StoppedAgent, Pod)>,
    ) -> Result<(), Failure> {
        sleep(duration / 2).await;
        if let Some((agent, pod)) = agent {
            self.crash_agent(agent, &pod).await?;
        }
        sleep(duration / 2).await;
        Ok(())
    }

    async fn crash_agent(&self, agent: StoppedAgent, pod: &Pod) -> Result<(), Failure> {
        self.faults.kill_container(pod).await?;
        *self.crashes.borrow_mut().entry(agent).or_default() += 1;
        Ok(())
    }

    async fn wait_report(&self, agent: StoppedAgent, time: Timestamp) -> Result<(), Failure> {
        let node = self.node_name(agent);
        eventually_within(REPORT_DEADLINE, "the agent reports again", async || {
            self.ensure_reported_after(node, time).await
        })
        .await
    }

    async fn ensure_reported_after(&self, node: &str, time: Timestamp) -> Result<(), Failure> {
        let renewed_at = self.faults.agents.get_renew_time(node).await?;
        ensure(renewed_at > time, || format!("the last report of node {node} was at {renewed_at}"))
    }

    async fn get_optional_agent(&self, agent: Option<StoppedAgent>) -> Result<Option<Pod>, Failure> {
        let Some(agent) = agent else { return Ok(None) };
        eventually("the agent runs", async || self.get_agent(agent).await).await.map(Some)
    }

    async fn get_agent(&self, agent: StoppedAgent) -> Result<Pod, Failure> {
        self.faults.agents.get_pod_on_node(self.node_name(agent)).await
    }

    fn node_name(&self, agent: StoppedAgent) -> &str {
        match agent {
            StoppedAgent::OfSecondNode => &self.node_names[1],
            StoppedAgent::OfThirdNode => &self.node_names[2],
        }
    }
}

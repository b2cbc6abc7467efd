//! The random schedule of faults. The seed determines the schedule. Pure.

use std::fmt;
use std::time::Duration;

use fastrand::Rng;

/// The time from the start of one fault to the start of the next fault, after the memory has been measured for the
/// first time. A cut of a node can take longer. The next fault then starts late.
const FAULT_INTERVAL: Duration = Duration::from_mins(1);
/// The faults end before the changes end, so that the changes are also made without faults.
const QUIET_TIME: Duration = Duration::from_secs(20);

/// An agent that faults stop. The agent of the first node is never stopped, because a new process cannot show a leak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum StoppedAgent {
    OfSecondNode,
    OfThirdNode,
}

/// A way to stop a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StopMethod {
    /// The process is killed. The kubelet starts the container again in the same pod.
    Crash,
    /// The process is killed, and then its pod is deleted.
    CrashAndDelete,
    /// The pod is deleted gracefully.
    Delete,
}

/// A fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    StopAgent(StoppedAgent, StopMethod),
    StopOperator(StopMethod),
    /// The API server is paused. An agent may crash meanwhile.
    PauseApiServer(Duration, Option<StoppedAgent>),
    /// The third node is cut. Its agent may crash meanwhile.
    CutThirdNode(Duration, Option<StoppedAgent>),
}

/// A fault, and the time from the start of the phase to the start of the fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ScheduledFault {
    pub(crate) start: Duration,
    pub(crate) fault: Fault,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let crash_of = |agent: &Option<StoppedAgent>| {
            agent.map_or_else(String::new, |agent| format!(", and the agent {agent:?} crashes"))
        };
        match self {
            Self::StopAgent(agent, method) => write!(f, "{method:?} of the agent {agent:?}"),
            Self::StopOperator(method) => write!(f, "{method:?} of the operator"),
            Self::PauseApiServer(duration, agent) => {
                write!(f, "the API server is paused for {} s{}", duration.as_secs(), crash_of(agent))
            }
            Self::CutThirdNode(duration, agent) => {
                write!(f, "the third node is cut for {} s{}", duration.as_secs(), crash_of(agent))
            }
        }
    }
}

/// The random number generator of the faults. The changes have another generator, because their number varies.
pub(crate) struct FaultGenerator {
    rng: Rng,
    agent_stop_count: usize,
}

impl FaultGenerator {
    pub(crate) fn new(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let agent_stop_count = rng.usize(..6);
        Self { rng, agent_stop_count }
    }

    /// Returns the faults before the memory is measured for the first time. Only these faults stop the operator.
    pub(crate) fn schedule_before_baseline(&mut self, duration: Duration) -> Vec<ScheduledFault> {
        let faults = [
            self.next_agent_stop(),
            Fault::StopOperator(StopMethod::CrashAndDelete),
            Fault::StopOperator(StopMethod::Delete),
            Fault::PauseApiServer(Duration::from_secs(10), None),
        ];
        let slots = faults.into_iter().zip([0.1, 0.25, 0.4, 0.55]);
        slots
            .map(|(fault, start)| {
                let start = duration.mul_f32(start + 0.1 * self.rng.f32());
                ScheduledFault { start, fault }
            })
            .collect()
    }

    /// Returns the faults between the two measurements of the memory.
    pub(crate) fn schedule_after_baseline(&mut self, duration: Duration) -> Vec<ScheduledFault> {
        let mut schedule = Vec::new();
        let mut slot_start = Duration::ZERO;
        for slot in 0.. {
            let fault = match slot % 6 {
                1 => Fault::CutThirdNode(self.choose_duration(30, 60), self.choose_third_agent()),
                3 => Fault::PauseApiServer(self.choose_duration(10, 20), self.choose_agent()),
                _ => self.next_agent_stop(),
            };
            let start = slot_start + FAULT_INTERVAL.mul_f32(0.3 * self.rng.f32());
            if start + fault.duration() + QUIET_TIME > duration {
                return schedule;
            }
            schedule.push(ScheduledFault { start, fault });
            slot_start += FAULT_INTERVAL;
        }
        schedule
    }

    /// The agents and the methods alternate, because the kubelet delays the start of a container that crashes
    /// repeatedly in one pod.
    fn next_agent_stop(&mut self) -> Fault {
        let agents = [StoppedAgent::OfSecondNode, StoppedAgent::OfThirdNode];
        let methods = [StopMethod::Crash, StopMethod::CrashAndDelete, StopMethod::Delete];
        let count = self.agent_stop_count;
        self.agent_stop_count += 1;
        Fault::StopAgent(agents[count % agents.len()], methods[count % methods.len()])
    }

    fn choose_duration(&mut self, min_seconds: u64, max_seconds: u64) -> Duration {
        Duration::from_secs(self.rng.u64(min_seconds..=max_seconds))
    }

    fn choose_agent(&mut self) -> Option<StoppedAgent> {
        let agents = [None, Some(StoppedAgent::OfSecondNode), Some(StoppedAgent::OfThirdNode)];
        agents[self.rng.usize(..agents.len())]
    }

    fn choose_third_agent(&mut self) -> Option<StoppedAgent> {
        self.rng.bool().then_some(StoppedAgent::OfThirdNode)
    }
}

impl Fault {
    fn duration(self) -> Duration {
        match self {
            Self::PauseApiServer(duration, _) | Self::CutThirdNode(duration, _) => duration,
            Self::StopAgent(..) | Self::StopOperator(_) => Duration::ZERO,
        }
    }
}

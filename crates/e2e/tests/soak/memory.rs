//! The memory of the processes that the soak never restarts. Does I/O.

use e2e::{Failure, Faults, ensure, ensure_eq, restart_count};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

/// The allowed growth of the memory in percent.
const ALLOWED_GROWTH_PERCENT: u64 = 10;
/// The additional allowed growth in KiB. The allocator takes memory from the kernel in large steps, and the processes
/// are small. So a process without a leak can have one step more than before.
const ALLOWED_GROWTH_KIB: u64 = 1024;

/// The memory of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct MemoryUse {
    /// All memory of the process, including its program file.
    resident_kib: u64,
    /// The memory of the heap and the stacks.
    anonymous_kib: u64,
    threads: u64,
}

/// A process in a pod, and its memory.
pub(crate) struct ProcessMemory {
    program: &'static str,
    pod_name: String,
    restarts: i32,
    memory: MemoryUse,
}

impl ProcessMemory {
    /// Measures the memory of the operator, and of the agent on a node.
    pub(crate) async fn measure(faults: &Faults, node: &str) -> Result<[Self; 2], Failure> {
        let operator = faults.operator.wait_ready().await?;
        let agent = faults.agents.get_pod_on_node(node).await?;
        let processes = [
            Self::measure_process(faults, &operator, "akrobateo").await?,
            Self::measure_process(faults, &agent, "akrobateo-agent").await?,
        ];
        for process in &processes {
            println!("memory: {}", process.describe());
        }
        Ok(processes)
    }

    async fn measure_process(faults: &Faults, pod: &Pod, program: &'static str) -> Result<Self, Failure> {
        let status = faults.get_process_status(pod, program).await?;
        let memory = parse_status(&status).ok_or_else(|| {
            Failure::UnexpectedState(format!("expected the status of one process {program}, got {status:?}"))
        })?;
        Ok(Self { program, pod_name: pod.name_any(), restarts: restart_count(pod), memory })
    }

    /// Checks that the process is the same as before, and that its memory has not grown.
    pub(crate) fn ensure_no_leak(&self, baseline: &Self) -> Result<(), Failure> {
        let process = |memory: &Self| (memory.pod_name.clone(), memory.restarts);
        let name = format!("pod of {}, and the restarts of its container", self.program);
        ensure_eq(&name, &process(self), &process(baseline))?;
        let (memory, baseline) = (self.memory, baseline.memory);
        for (kind, kib, baseline_kib) in [
            ("resident", memory.resident_kib, baseline.resident_kib),
            ("anonymous", memory.anonymous_kib, baseline.anonymous_kib),
        ] {
            let limit = baseline_kib + baseline_kib * ALLOWED_GROWTH_PERCENT / 100 + ALLOWED_GROWTH_KIB;
            ensure(kib <= limit, || {
                format!(
                    "the {kind} memory of {} grew from {baseline_kib} KiB to {kib} KiB; expected at most {limit} KiB",
                    self.pod_name
                )
            })?;
        }
        Ok(())
    }

    pub(crate) fn describe(&self) -> String {
        let Self { program, pod_name, memory, .. } = self;
        let MemoryUse { resident_kib, anonymous_kib, threads } = memory;
        format!(
            "{program} in {pod_name}: {resident_kib} KiB resident, {anonymous_kib} KiB anonymous, {threads} threads"
        )
    }
}

/// Parses /proc/PID/status of exactly one process.
fn parse_status(status: &str) -> Option<MemoryUse> {
    let get_value = |name: &str| -> Option<u64> {
        let mut values = status.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let value = values.next()?;
        values.next().is_none().then(|| value.split_whitespace().next()?.parse().ok())?
    };
    Some(MemoryUse {
        resident_kib: get_value("VmRSS")?,
        anonymous_kib: get_value("RssAnon")?,
        threads: get_value("Threads")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "Name:\takrobateo\nVmRSS:\t   12000 kB\nRssAnon:\t    8000 kB\nThreads:\t3\n";

    fn process(anonymous_kib: u64) -> ProcessMemory {
        let memory = MemoryUse { anonymous_kib, ..parse_status(STATUS).unwrap() };
        ProcessMemory { program: "akrobateo", pod_name: "pod".to_owned(), restarts: 0, memory }
    }

    #[test]
    fn parser_accepts_the_status_of_one_process() {
        let memory = MemoryUse { resident_kib: 12_000, anonymous_kib: 8_000, threads: 3 };
        assert_eq!(parse_status(STATUS), Some(memory));
        assert_eq!(parse_status(""), None);
        assert_eq!(parse_status(&STATUS.repeat(2)), None);
    }

    #[test]
    fn growth_above_the_limit_is_a_leak() {
        let baseline = process(8_000);
        assert!(process(8_000 + 800 + 1024).ensure_no_leak(&baseline).is_ok());
        assert!(process(8_000 + 800 + 1025).ensure_no_leak(&baseline).is_err());
    }

    #[test]
    fn memory_of_another_process_is_not_compared() {
        let restarted_process = ProcessMemory { restarts: 1, ..process(8_000) };
        assert!(restarted_process.ensure_no_leak(&process(8_000)).is_err());
    }
}

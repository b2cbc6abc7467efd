//! CPU time of the benchmark and its proxies, and of the whole machine. Does I/O.
//!
//! The kernel forwards a packet in the context of the sender, so the CPU time of the sender includes the forwarding.
//! The benchmark's CPU time includes the ksoftirqd threads, because deferred work of the kernel runs in these threads.

use std::fs;
use std::time::Duration;

use rustix::process::Pid;
use rustix::time::{ClockId, clock_gettime};

use crate::error::{BenchError, Context};
use crate::set_up::HOST_PROC_PATH;

/// The number of clock ticks per second in `/proc/stat` (`USER_HZ` of proc(5)).
const TICKS_PER_SECOND: f64 = 100.0;

/// CPU times in seconds. A reading is useful only in comparison with an earlier reading.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CpuTime {
    /// The time of the benchmark, the proxy and ksoftirqd.
    pub(crate) benchmark_cpu_seconds: f64,
    /// The time of all programs on the machine.
    pub(crate) machine_cpu_seconds: f64,
}

/// Reads CPU times.
#[derive(Debug)]
pub(crate) struct CpuMeter {
    /// The schedstat files of the ksoftirqd threads, one per processor.
    ksoftirqd_files: Vec<String>,
}

impl CpuMeter {
    /// Finds the ksoftirqd threads.
    pub(crate) fn new() -> Result<Self, BenchError> {
        let is_ksoftirqd = |directory: &fs::DirEntry| {
            let name = fs::read_to_string(directory.path().join("comm")).unwrap_or_default();
            name.starts_with("ksoftirqd/")
        };
        let processes = fs::read_dir(HOST_PROC_PATH).context(HOST_PROC_PATH)?;
        let ksoftirqd_files = processes
            .flatten()
            .filter(is_ksoftirqd)
            .map(|directory| format!("{}/schedstat", directory.path().display()))
            .collect();
        Ok(Self { ksoftirqd_files })
    }

    /// Returns the CPU time that was used until now. Includes the processes `proxies` and their child processes.
    pub(crate) fn read(&self, proxies: &[Pid]) -> Result<CpuTime, BenchError> {
        let own_cpu_time = Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).unwrap_or_default();
        let ksoftirqd_cpu_time = self.ksoftirqd_files.iter().map(|path| read_run_time(path)).sum::<f64>();
        let proxy_cpu_time = list_with_descendants(proxies).into_iter().map(process_cpu_time).sum::<f64>();
        let stat = fs::read_to_string("/proc/stat").context("/proc/stat")?;
        let machine_cpu_seconds = parse_busy_time(&stat)
            .ok_or_else(|| BenchError::UnexpectedState("/proc/stat has no cpu line".to_owned()))?;
        Ok(CpuTime {
            benchmark_cpu_seconds: own_cpu_time.as_secs_f64() + ksoftirqd_cpu_time + proxy_cpu_time,
            machine_cpu_seconds,
        })
    }
}

/// Returns these processes and all their descendants.
pub(crate) fn list_with_descendants(processes: &[Pid]) -> Vec<Pid> {
    let mut processes_and_descendants = processes.to_vec();
    let mut next = 0;
    while let Some(&pid) = processes_and_descendants.get(next) {
        let pid = pid.as_raw_pid();
        // A process that has ended has no children.
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        let children = children.split_whitespace().filter_map(|child| child.parse().ok());
        processes_and_descendants.extend(children.filter_map(Pid::from_raw));
        next += 1;
    }
    processes_and_descendants
}

fn process_cpu_time(pid: Pid) -> f64 {
    let Ok(tasks) = fs::read_dir(format!("/proc/{}/task", pid.as_raw_pid())) else { return 0.0 };
    tasks.flatten().map(|task| read_run_time(&task.path().join("schedstat").display().to_string())).sum()
}

fn read_run_time(path: &str) -> f64 {
    fs::read_to_string(path).ok().and_then(|text| parse_run_time(&text)).unwrap_or(0.0)
}

/// Parses the text of a schedstat file, and returns the run time in seconds.
fn parse_run_time(schedstat: &str) -> Option<f64> {
    let nanoseconds = schedstat.split(' ').next()?.trim().parse().ok()?;
    Some(Duration::from_nanos(nanoseconds).as_secs_f64())
}

/// Parses the text of `/proc/stat`. Returns the busy time of all processors in seconds: user, nice, system, irq and
/// softirq.
fn parse_busy_time(stat: &str) -> Option<f64> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let times: Vec<f64> = line.split_whitespace().map(str::parse).collect::<Result<_, _>>().ok()?;
    let busy_columns = [0, 1, 2, 5, 6];
    Some(busy_columns.into_iter().filter_map(|column| times.get(column)).sum::<f64>() / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_time_excludes_idle_iowait_and_steal() {
        let stat = "cpu  100 20 300 9999 570 4 102 95 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n";
        assert_eq!(parse_busy_time(stat), Some(5.26));
        assert_eq!(parse_busy_time("intr 1"), None);
    }

    #[test]
    fn run_time_is_the_first_number_of_schedstat() {
        assert_eq!(parse_run_time("1500000000 7 3\n"), Some(1.5));
        assert_eq!(parse_run_time(""), None);
    }
}

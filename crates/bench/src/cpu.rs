//! CPU time: of the benchmark with all that it has started, and of the machine.
//!
//! Packets are forwarded in the context of whoever sends, and counted as its time; what the kernel puts off to its
//! ksoftirqd threads is added. So what others do on the machine is not counted.

use std::fs;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::failure::{Failure, Tried};
use crate::isolation::MACHINE_PROC;

/// A second has so many of the units of /proc/stat.
const TICKS: f64 = 100.0;

/// CPU times since some beginning, in seconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cpu {
    /// Of the benchmark, the measured proxy and ksoftirqd.
    pub(crate) own: f64,
    /// Of everybody.
    pub(crate) machine: f64,
}

/// Reads CPU times.
#[derive(Debug)]
pub(crate) struct Meter {
    /// Files with the time of ksoftirqd, one per processor.
    softirqs: Vec<String>,
}

impl Meter {
    /// Finds the kernel's threads.
    pub(crate) fn new() -> Result<Self, Failure> {
        let named = |directory: &fs::DirEntry| {
            let name = fs::read_to_string(directory.path().join("comm")).unwrap_or_default();
            name.starts_with("ksoftirqd/")
        };
        let entries = fs::read_dir(MACHINE_PROC).tried(MACHINE_PROC)?;
        let softirqs = entries
            .flatten()
            .filter(named)
            .map(|directory| format!("{}/schedstat", directory.path().display()))
            .collect();
        Ok(Self { softirqs })
    }

    /// The times up to now; of the processes with these ids and their children, besides the benchmark itself.
    pub(crate) fn read(&self, proxies: &[u32]) -> Result<Cpu, Failure> {
        let itself = clock_gettime(ClockId::ProcessCPUTime);
        let itself = Duration::try_from(itself).unwrap_or_default().as_secs_f64();
        let softirqs = self.softirqs.iter().map(|path| schedstat(path)).sum::<f64>();
        let proxies = tree(proxies).into_iter().map(process).sum::<f64>();
        let stat = fs::read_to_string("/proc/stat").tried("/proc/stat")?;
        let machine = busy(&stat).ok_or_else(|| Failure::Wrong("/proc/stat has no line cpu".to_owned()))?;
        Ok(Cpu { own: itself + softirqs + proxies, machine })
    }
}

/// These processes and their children.
pub(crate) fn tree(roots: &[u32]) -> Vec<u32> {
    let mut found = roots.to_vec();
    let mut next = 0;
    while let Some(&pid) = found.get(next) {
        // A process that has ended has no children.
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        found.extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
        next += 1;
    }
    found
}

fn process(pid: u32) -> f64 {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return 0.0 };
    tasks.flatten().map(|task| schedstat(&task.path().join("schedstat").display().to_string())).sum()
}

fn schedstat(path: &str) -> f64 {
    fs::read_to_string(path).ok().and_then(|text| ran(&text)).unwrap_or(0.0)
}

/// The time that a task has run, of its schedstat.
fn ran(schedstat: &str) -> Option<f64> {
    let nanoseconds = schedstat.split(' ').next()?.trim().parse().ok()?;
    Some(Duration::from_nanos(nanoseconds).as_secs_f64())
}

/// The time in which processors did something, of /proc/stat: user, nice, system, irq and softirq.
fn busy(stat: &str) -> Option<f64> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let times: Vec<f64> = line.split_whitespace().map(str::parse).collect::<Result<_, _>>().ok()?;
    Some([0, 1, 2, 5, 6].into_iter().filter_map(|at| times.get(at)).sum::<f64>() / TICKS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_waiting_and_stolen_time_is_not_busy() {
        let stat = "cpu  100 20 300 9999 570 4 102 95 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n";
        assert_eq!(busy(stat), Some(5.26));
        assert_eq!(busy("intr 1"), None);
    }

    #[test]
    fn a_task_has_run_for_the_first_number_of_its_schedstat() {
        assert_eq!(ran("1500000000 7 3\n"), Some(1.5));
        assert_eq!(ran(""), None);
    }
}

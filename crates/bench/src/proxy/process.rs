//! A running proxy. I/O only.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::cpu;
use crate::failure::{Failure, Tried};
use crate::namespace::Namespace;

/// A running proxy; killed when it goes out of scope.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    /// What it says, for when it fails.
    log: String,
}

impl Process {
    /// Starts a program in a namespace.
    pub(crate) fn start(namespace: &Namespace, command: &mut Command) -> Result<Self, Failure> {
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let log = format!("/run/log-{}", STARTED.fetch_add(1, Ordering::Relaxed));
        let name = command.get_program().display().to_string();
        let output = fs::File::create(&log).tried(&log)?;
        let errors = output.try_clone().tried(&log)?;
        command.stdin(Stdio::null()).stdout(output).stderr(errors);
        let child = namespace.run(|| command.spawn().tried(&name))?;
        Ok(Self { child, log })
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// An error if it has ended, with what it said last.
    pub(crate) fn runs(&mut self) -> Result<(), Failure> {
        let Some(status) = self.child.try_wait().tried("the proxy")? else { return Ok(()) };
        let said = fs::read_to_string(&self.log).unwrap_or_default();
        Err(Failure::Program("the proxy ended".to_owned(), format!("{status}: {}", said.trim())))
    }

    /// Resident memory of it and its children, in bytes.
    pub(crate) fn memory(&self) -> u64 {
        let status = |pid: u32| fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        cpu::tree(&[self.id()]).into_iter().filter_map(|pid| resident(&status(pid))).sum()
    }

    /// Descriptors that it and its children have open.
    pub(crate) fn descriptors(&self) -> usize {
        let open = |pid: u32| fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count);
        cpu::tree(&[self.id()]).into_iter().map(open).sum()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Resident memory, of /proc/PID/status, in bytes.
fn resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kilobytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resident_memory_is_read_in_bytes() {
        assert_eq!(resident("Name:\tx\nVmRSS:\t    1544 kB\nRssAnon:\t 1 kB\n"), Some(1544 * 1024));
        assert_eq!(resident("Name:\tkthreadd\n"), None);
    }
}

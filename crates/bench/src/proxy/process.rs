//! A running proxy process. Does I/O.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use netns_testkit::{Namespace, process};
use rustix::process::Pid;

use crate::cpu_time::list_with_descendants;
use crate::error::{BenchError, Context};

/// A running proxy. The process is killed when the struct is dropped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    /// The path of the file with the process's output, for error messages.
    log_file: String,
}

impl Process {
    /// Starts a program in a namespace.
    pub(crate) fn start(namespace: &Namespace, command: &mut Command) -> Result<Self, BenchError> {
        static STARTED_PROCESS_COUNT: AtomicU32 = AtomicU32::new(0);
        let log_file = format!("/run/log-{}", STARTED_PROCESS_COUNT.fetch_add(1, Ordering::Relaxed));
        let program = command.get_program().display().to_string();
        let stdout = fs::File::create(&log_file).context(&log_file)?;
        let stderr = stdout.try_clone().context(&log_file)?;
        command.stdin(Stdio::null()).stdout(stdout).stderr(stderr);
        let child = namespace.run(|| command.spawn().context(&program))?;
        Ok(Self { child, log_file })
    }

    /// Returns the process ID.
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Returns an error with the process's log if the process has exited.
    pub(crate) fn check_running(&mut self) -> Result<(), BenchError> {
        let Some(status) = self.child.try_wait().context("the proxy")? else { return Ok(()) };
        let log = fs::read_to_string(&self.log_file).unwrap_or_default();
        Err(BenchError::Command("the proxy exited".to_owned(), format!("{status}: {}", log.trim())))
    }

    /// Returns the resident memory of the process and its children, in bytes.
    pub(crate) fn resident_memory_bytes(&self) -> u64 {
        list_with_descendants(&[self.pid()]).into_iter().filter_map(process::resident_memory_bytes).sum()
    }

    /// Returns the number of open descriptors of the process and its children.
    pub(crate) fn count_open_descriptors(&self) -> usize {
        list_with_descendants(&[self.pid()]).into_iter().map(process::count_open_descriptors).sum()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // An error means that the process has exited already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

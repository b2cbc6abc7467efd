//! A program that the measurement starts: its process, and its log. Does I/O.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use netns_testkit::process::resident_memory_bytes;
use rustix::process::{Pid, Signal, kill_process};

use crate::error::{Context, ScaleError};

/// The time within which a program must end after SIGTERM.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);
/// The number of the log's last lines in an error message.
const SHOWN_LINE_COUNT: usize = 8;
/// The number of clock ticks of a second in `/proc` (`USER_HZ`).
const TICKS_PER_SECOND: f64 = 100.0;

/// A running program. It is killed when the value is dropped.
#[derive(Debug)]
pub(crate) struct Program {
    name: String,
    child: Child,
    log: PathBuf,
}

/// The CPU time and the memory of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Usage {
    /// The CPU time since the start of the process.
    pub(crate) cpu_seconds: f64,
    /// The resident memory.
    pub(crate) resident_bytes: u64,
}

impl Program {
    /// Starts a program. Its output goes to `NAME.log` in `directory`.
    pub(crate) fn start(name: &str, command: &mut Command, directory: &Path) -> Result<Self, ScaleError> {
        let log = directory.join(format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&log).context(name)?;
        let output = file.try_clone().context(name)?;
        Self::spawn(name, command.stdin(Stdio::null()).stdout(output).stderr(file), log)
    }

    /// Starts a program like [`Self::start`], and returns its standard output.
    pub(crate) fn start_with_output(
        name: &str,
        command: &mut Command,
        directory: &Path,
    ) -> Result<(Self, Option<ChildStdout>), ScaleError> {
        let log = directory.join(format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&log).context(name)?;
        let mut program =
            Self::spawn(name, command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(file), log)?;
        let output = program.child.stdout.take();
        Ok((program, output))
    }

    fn spawn(name: &str, command: &mut Command, log: PathBuf) -> Result<Self, ScaleError> {
        let child = command.spawn().context(&command.get_program().display().to_string())?;
        Ok(Self { name: name.to_owned(), child, log })
    }

    /// Returns an error with the end of the log if the program has ended.
    pub(crate) fn check(&mut self) -> Result<(), ScaleError> {
        match self.child.try_wait().context(&self.name)? {
            None => Ok(()),
            Some(status) => {
                Err(ScaleError::Program(self.name.clone(), format!("{status}\n{}", self.log_end())))
            }
        }
    }

    fn log_end(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(SHOWN_LINE_COUNT)..].join("\n")
    }

    /// Ends the program with SIGTERM, and waits until it has ended.
    pub(crate) fn stop(&mut self) -> Result<(), ScaleError> {
        kill_process(Pid::from_child(&self.child), Signal::TERM).context(&self.name)?;
        let deadline = Instant::now() + STOP_TIMEOUT;
        while self.child.try_wait().context(&self.name)?.is_none() {
            if Instant::now() > deadline {
                return Err(ScaleError::Timeout {
                    expected: format!("the end of {} after SIGTERM", self.name),
                    found: self.log_end(),
                    limit: STOP_TIMEOUT,
                });
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Kills the program. It cannot react.
    pub(crate) fn kill(&mut self) {
        // An error means that the process has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Reads the CPU time and the memory of the process.
    pub(crate) fn usage(&self) -> Result<Usage, ScaleError> {
        let pid = Pid::from_child(&self.child);
        let path = format!("/proc/{}/stat", pid.as_raw_pid());
        let stat = fs::read_to_string(&path).context(&path)?;
        let cpu_seconds = parse_cpu_seconds(&stat)
            .ok_or_else(|| ScaleError::UnexpectedState(format!("{path} has no CPU times: {stat}")))?;
        Ok(Usage { cpu_seconds, resident_bytes: resident_memory_bytes(pid).unwrap_or_default() })
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Runs a program until its end.
pub(crate) fn run_command(command: &mut Command) -> Result<(), ScaleError> {
    let program = command.get_program().display().to_string();
    let output = command.output().context(&program)?;
    if output.status.success() {
        return Ok(());
    }
    Err(ScaleError::Program(program, String::from_utf8_lossy(&output.stderr).into_owned()))
}

/// Returns the sum of the user and system time in `/proc/PID/stat` (proc(5)).
fn parse_cpu_seconds(stat: &str) -> Option<f64> {
    // The name of the program is in parentheses, and may contain spaces.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut times = fields.split_whitespace().skip(11);
    let (user, system): (f64, f64) = (times.next()?.parse().ok()?, times.next()?.parse().ok()?);
    Some((user + system) / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_the_sum_of_user_and_system_time() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194560 100 0 0 0 150 50 0 0 20 0 1 0 5 6 7\n";
        assert_eq!(parse_cpu_seconds(stat), Some(2.0));
        assert_eq!(parse_cpu_seconds("7 (a) S"), None);
    }
}

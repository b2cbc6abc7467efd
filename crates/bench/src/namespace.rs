//! A network namespace, and running code and programs in it. I/O only.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd};
use std::process::{Command, Stdio};

use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

use crate::failure::{Failure, Tried};

/// Where Debian has the programs.
pub(crate) const PROGRAMS: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// A network namespace; it goes with the last process, thread or descriptor that holds it.
#[derive(Debug)]
pub(crate) struct Namespace(File);

impl Namespace {
    /// A new one, with its loopback up.
    pub(crate) fn new() -> Result<Self, Failure> {
        #[expect(deprecated, reason = "unsound only with UnshareFlags::FILES")]
        let unshared = || rustix::thread::unshare(UnshareFlags::NEWNET);
        let make = || {
            unshared().tried("a network namespace (root is needed)")?;
            File::open("/proc/thread-self/ns/net").map(Self).tried("the network namespace")
        };
        let namespace = on_a_thread(make)?;
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// Runs `code` in here, on a thread of its own.
    pub(crate) fn run<T: Send>(
        &self,
        code: impl FnOnce() -> Result<T, Failure> + Send,
    ) -> Result<T, Failure> {
        on_a_thread(|| self.enter().and_then(|()| code()))
    }

    /// Moves the calling thread in here.
    pub(crate) fn enter(&self) -> Result<(), Failure> {
        move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Network))
            .tried("entering a namespace")
    }

    /// Runs several commands of ip(8), one per line.
    pub(crate) fn ip(&self, commands: &str) -> Result<(), Failure> {
        self.feed(Command::new("ip").args(["-batch", "-"]), commands)
    }

    /// Loads a file of nft(8).
    pub(crate) fn nft(&self, rules: &str) -> Result<(), Failure> {
        self.feed(Command::new("nft").args(["-f", "-"]), rules)
    }

    /// Runs a program in here that reads `input` and must succeed.
    pub(crate) fn feed(&self, command: &mut Command, input: &str) -> Result<(), Failure> {
        let line = command.get_program().display().to_string();
        command.env("PATH", PROGRAMS).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let output = self.run(|| {
            let mut child = command.spawn().tried(&line)?;
            if let Some(mut stdin) = child.stdin.take() {
                stdin.write_all(input.as_bytes()).tried(&line)?;
            }
            child.wait_with_output().tried(&line)
        })?;
        if output.status.success() {
            return Ok(());
        }
        Err(Failure::Program(line, String::from_utf8_lossy(&output.stderr).trim().to_owned()))
    }

    /// Writes a sysctl of this namespace.
    pub(crate) fn sysctl(&self, path: &str, value: &str) -> Result<(), Failure> {
        self.run(|| std::fs::write(format!("/proc/sys/net/{path}"), value).tried(path))
    }

    /// How ip(8) names this namespace when it hands an interface over.
    pub(crate) fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }
}

fn on_a_thread<T: Send>(code: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| match scope.spawn(code).join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

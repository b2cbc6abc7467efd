//! The program under test, in a container with few capabilities and a read-only file system. Does I/O.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use netns_testkit::{DEADLINE, Namespace, eventually, http, process};
use rustix::process::{Pid, Signal, kill_process};

const PROGRAM_PATH: &str = env!("CARGO_BIN_EXE_akrobateo-lb");

/// The probe's port, if the test does not choose another port.
pub const PROBE_PORT: u16 = 10_290;

/// A shell script that mounts the file `$LOG` at `/dev/termination-log`, and then runs its arguments.
const CONTAINER_SCRIPT: &str = r#"
set -eu
mount -t tmpfs tmpfs /dev
touch /dev/termination-log
mount --bind "$LOG" /dev/termination-log
mount -o remount,ro,bind /dev
mount --bind /proc/sys /proc/sys
mount -o remount,ro,bind /proc/sys
mount -o remount,ro,bind /
exec setpriv --no-new-privs --inh-caps=-all --bounding-set="$CAPS" -- "$@"
"#;

/// A running proxy. The process is killed when the `Proxy` is dropped.
#[derive(Debug)]
pub struct Proxy {
    child: Child,
    log: Arc<Mutex<String>>,
    termination_log: PathBuf,
}

impl Proxy {
    /// Starts a proxy in `pod` with only the capability `NET_ADMIN`, and waits until it is ready.
    pub fn start_and_wait(pod: &Namespace, args: &[String]) -> Self {
        Self::start_with_capabilities_and_wait(pod, args, "-all,+net_admin")
    }

    /// Starts a proxy like [`Self::start`], and waits until it is ready.
    pub fn start_with_capabilities_and_wait(pod: &Namespace, args: &[String], capabilities: &str) -> Self {
        let mut proxy = Self::start(pod, args, capabilities);
        eventually("the proxy is ready", || {
            assert!(proxy.child.try_wait().unwrap().is_none(), "the proxy exited:\n{}", proxy.log());
            (probe_status(pod) == Some(200)).then_some(())
        });
        proxy
    }

    /// Starts a proxy in `pod`; `capabilities` is the bounding set in the syntax of setpriv(1).
    pub fn start(pod: &Namespace, args: &[String], capabilities: &str) -> Self {
        static STARTED_PROXY_COUNT: AtomicU32 = AtomicU32::new(0);
        let number = STARTED_PROXY_COUNT.fetch_add(1, Ordering::Relaxed);
        // The isolated test has its own /run.
        let termination_log = PathBuf::from(format!("/run/termination-{number}"));
        std::fs::write(&termination_log, "").unwrap();
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "sh", "-c", CONTAINER_SCRIPT, "container", PROGRAM_PATH])
            .args(args)
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("CAPS", capabilities)
            .env("LOG", &termination_log)
            .stdin(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = pod.run(|| command.spawn().unwrap());
        let log = Arc::new(Mutex::new(String::new()));
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let log_writer = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                log_writer.lock().unwrap().extend([line.as_str(), "\n"]);
            }
        });
        Self { child, log, termination_log }
    }

    /// Returns everything that the proxy has logged so far.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Waits until the log contains `text`.
    pub fn wait_for_log(&self, text: &str) {
        eventually(&format!("the proxy logs {text:?}"), || self.log().contains(text).then_some(()));
    }

    /// Returns the termination message.
    pub fn termination_message(&self) -> String {
        std::fs::read_to_string(&self.termination_log).unwrap()
    }

    /// Returns the process ID.
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Returns the private memory of the process in KiB, without mapped files.
    pub fn private_memory_kib(&self) -> u64 {
        process::anonymous_memory_bytes(self.pid()).unwrap() / 1024
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Kills the process.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits until the process exits. Returns the exit status and the time until the exit.
    pub fn wait_for_exit(&mut self) -> (ExitStatus, Duration) {
        let start = Instant::now();
        let status = eventually("the proxy exits", || self.child.try_wait().unwrap());
        (status, start.elapsed())
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("the proxy's log:\n{}", self.log());
        }
    }
}

/// Runs the program in `pod` with all capabilities of the test, and waits until it exits.
pub fn run_to_exit(pod: &Namespace, args: &[&str]) -> Output {
    pod.run(|| Command::new(PROGRAM_PATH).args(args).output().unwrap())
}

/// Runs the program as [`run_to_exit`] does. For this program, the kernel reports the version Linux 2.6.
pub fn run_on_old_kernel(pod: &Namespace, args: &[&str]) -> Output {
    pod.run(|| Command::new("setarch").args(["--uname-2.6", PROGRAM_PATH]).args(args).output().unwrap())
}

/// Returns the status code of the readiness probe; `None` if there is no response.
pub fn probe_status(pod: &Namespace) -> Option<u16> {
    pod.run(|| http::status(("127.0.0.1", PROBE_PORT), "/readyz", DEADLINE))
}

/// Splits a line into arguments.
pub fn split_args(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

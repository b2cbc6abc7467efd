//! The program under test, run as a container with only `NET_ADMIN` and nothing writable would run it.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::{DEADLINE, Namespace, eventually, traffic};

/// The port of the probe, unless a test chooses another.
pub const PROBE_PORT: u16 = 10_290;

/// Runs its arguments with the file $LOG as /dev/termination-log.
const CONTAINER: &str = r#"
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

/// A running proxy; killed when it goes out of scope.
#[derive(Debug)]
pub struct Proxy {
    child: Child,
    log: Arc<Mutex<String>>,
    termination: PathBuf,
}

impl Proxy {
    /// Starts a proxy in `pod` and waits until it is ready.
    pub fn ready(pod: &Namespace, args: &[String]) -> Self {
        Self::ready_with(pod, args, "-all,+net_admin")
    }

    /// Starts a proxy in `pod` with these capabilities, and waits until it is ready.
    pub fn ready_with(pod: &Namespace, args: &[String], capabilities: &str) -> Self {
        let mut proxy = Self::start_with(pod, args, capabilities);
        eventually("the proxy is ready", || {
            assert!(proxy.child.try_wait().unwrap().is_none(), "the proxy ended:\n{}", proxy.log());
            (status(pod) == Some(200)).then_some(())
        });
        proxy
    }

    /// Starts a proxy in `pod` with these capabilities, as setpriv(1) has them.
    pub fn start_with(pod: &Namespace, args: &[String], capabilities: &str) -> Self {
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let termination = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("termination-{number}"));
        std::fs::write(&termination, "").unwrap();
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "sh", "-c", CONTAINER, "container", env!("CARGO_BIN_EXE_akrobateo-lb")])
            .args(args)
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("CAPS", capabilities)
            .env("LOG", &termination)
            .stdin(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = pod.run(|| command.spawn().unwrap());
        let log = Arc::new(Mutex::new(String::new()));
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let lines = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                lines.lock().unwrap().extend([line.as_str(), "\n"]);
            }
        });
        Self { child, log, termination }
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Waits until it has logged `text`.
    pub fn logs(&self, text: &str) {
        eventually(&format!("the proxy logs {text:?}"), || self.log().contains(text).then_some(()));
    }

    /// What it has left as the reason of its end.
    pub fn termination(&self) -> String {
        std::fs::read_to_string(&self.termination).unwrap()
    }

    /// Its process.
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Memory of its own, in KiB: all but the program and what else is mapped from files.
    pub fn private_memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Kills it on the spot.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits until it ends by itself; returns how, and after how long.
    pub fn end(&mut self) -> (ExitStatus, Duration) {
        let start = Instant::now();
        let status = eventually("the proxy ends", || self.child.try_wait().unwrap());
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

/// Runs the program in `pod` to its end, with all that the test may do itself.
pub fn run(pod: &Namespace, args: &[&str]) -> Output {
    pod.run(|| Command::new(env!("CARGO_BIN_EXE_akrobateo-lb")).args(args).output().unwrap())
}

/// The status that the probe gets, over IPv4 from inside the pod; `None` if nobody answers.
pub fn status(pod: &Namespace) -> Option<u16> {
    pod.run(|| traffic::http_status("127.0.0.1", PROBE_PORT, "/readyz", DEADLINE))
}

/// Arguments from one line.
pub fn args(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

/// How many bytes of memory a process has in use.
pub fn resident(process: Pid) -> u64 {
    memory(process, "VmRSS:")
}

/// How many bytes of memory a process has ever had in use.
pub fn peak(process: Pid) -> u64 {
    memory(process, "VmHWM:")
}

fn memory(process: Pid, what: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{}/status", process.as_raw_nonzero())).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(what)).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

/// How many descriptors a process has open.
pub fn descriptors(process: Pid) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", process.as_raw_nonzero())).unwrap().count()
}

/// The descriptor that a process would get next.
pub fn lowest_free_descriptor(process: Pid) -> u64 {
    // A link to a socket leads nowhere, but is there.
    let is_there = |number: &u64| {
        std::fs::symlink_metadata(format!("/proc/{}/fd/{number}", process.as_raw_nonzero())).is_ok()
    };
    (0..=u64::MAX).find(|number| !is_there(number)).unwrap()
}

//! A network namespace, and running code and programs in it.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::process::{Command, Output, Stdio};

use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

/// A network namespace; it goes with the last process, thread or descriptor that holds it.
#[derive(Debug)]
pub struct Namespace(File);

impl Namespace {
    /// A new one, with its loopback up.
    pub fn new() -> Self {
        #[expect(deprecated, reason = "unsound only with UnshareFlags::FILES")]
        let unshared = || rustix::thread::unshare(UnshareFlags::NEWNET).unwrap();
        let make = || {
            unshared();
            Self(File::open("/proc/thread-self/ns/net").unwrap())
        };
        let namespace = std::thread::scope(|scope| scope.spawn(make).join().unwrap());
        namespace.ip("link set lo up");
        namespace
    }

    /// Runs `code` in here, on a thread of its own.
    pub fn run<T: Send>(&self, code: impl FnOnce() -> T + Send) -> T {
        let inside = || {
            move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            code()
        };
        std::thread::scope(|scope| match scope.spawn(inside).join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    }

    /// Runs several commands of ip(8), one per line; they must succeed.
    pub fn ip(&self, commands: &str) {
        let output = self.program("iproute2", "ip", &["-batch", "-"], commands);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "ip {commands:?}: {errors}");
    }

    /// What nft(8) answers; it must succeed. For looking, and for playing somebody who meddles.
    pub fn nft(&self, command: &str) -> String {
        self.try_nft(command).unwrap()
    }

    /// What nft(8) answers, or complains about.
    pub fn try_nft(&self, command: &str) -> Result<String, String> {
        let output = self.program("nftables", "nft", &command.split(' ').collect::<Vec<_>>(), "");
        let text = |bytes| String::from_utf8(bytes).unwrap();
        if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
    }

    /// Writes a sysctl of this namespace.
    pub fn sysctl(&self, path: &str, value: &str) {
        self.run(|| std::fs::write(format!("/proc/sys/net/{path}"), value).unwrap());
    }

    /// Reads a sysctl of this namespace.
    pub fn read_sysctl(&self, path: &str) -> String {
        self.run(|| std::fs::read_to_string(format!("/proc/sys/net/{path}")).unwrap().trim().to_owned())
    }

    /// A counter of /proc/net/snmp.
    pub fn counter(&self, protocol: &str, name: &str) -> u64 {
        let text = self.run(|| std::fs::read_to_string("/proc/thread-self/net/snmp").unwrap());
        let mut lines = text.lines().filter(|line| line.starts_with(&format!("{protocol}:")));
        let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
        let at = names.split(' ').position(|one| one == name).unwrap();
        values.split(' ').nth(at).unwrap().parse().unwrap()
    }

    /// The descriptor by which another namespace can hand an interface over.
    pub fn file(&self) -> &File {
        &self.0
    }

    fn program(&self, package: &str, program: &str, args: &[&str], input: &str) -> Output {
        let run = || {
            let mut child = Command::new(program)
                .args(args)
                // Where Debian has them, also for an ordinary user.
                .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap_or_else(|error| panic!("{program}: {error}: install the Debian package {package}"));
            child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
            child.wait_with_output().unwrap()
        };
        self.run(run)
    }
}

//! A network namespace: runs code and programs in it, and configures it. Does I/O.

use std::fs::File;
use std::io::Write;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::process::{Command, Output, Stdio};

use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

/// The directories in which Debian installs programs. The PATH of an ordinary user lacks the sbin directories.
const PROGRAM_PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// A network namespace. The kernel deletes the namespace after its last process or thread has ended and its last
/// descriptor is closed.
#[derive(Debug)]
pub struct Namespace(File);

impl Namespace {
    /// Creates a network namespace and sets its loopback interface up.
    #[expect(clippy::new_without_default, reason = "the constructor creates a kernel object")]
    pub fn new() -> Self {
        let namespace = run_on_new_thread(|| {
            #[expect(deprecated, reason = "the function is unsound only with UnshareFlags::FILES")]
            let unshare_result = rustix::thread::unshare(UnshareFlags::NEWNET);
            unshare_result
                .unwrap_or_else(|error| panic!("cannot create a network namespace: {error}: run as root"));
            Self(File::open("/proc/thread-self/ns/net").unwrap())
        });
        namespace.ip("link set lo up");
        namespace
    }

    /// Runs `code` in this namespace, on a new thread.
    pub fn run<T: Send>(&self, code: impl FnOnce() -> T + Send) -> T {
        run_on_new_thread(|| {
            self.enter();
            code()
        })
    }

    /// Moves the calling thread into this namespace.
    pub fn enter(&self) {
        move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
    }

    /// Runs several commands of ip(8), one per line.
    pub fn ip(&self, commands: &str) {
        self.run_program(Command::new("ip").args(["-batch", "-"]), commands);
    }

    /// Does the same as [`Self::ip`], but returns the error messages if a command fails.
    pub fn try_ip(&self, commands: &str) -> Result<(), String> {
        let output = self.output(Command::new("ip").args(["-batch", "-"]), commands);
        if output.status.success() { Ok(()) } else { Err(text(&output.stderr)) }
    }

    /// Runs one command of nft(8), and returns its output. Single spaces separate the words of `command`.
    pub fn nft(&self, command: &str) -> String {
        self.run_program(Command::new("nft").args(command.split(' ')), "")
    }

    /// Does the same as [`Self::nft`], but returns the error messages if the command fails.
    pub fn try_nft(&self, command: &str) -> Result<String, String> {
        let output = self.output(Command::new("nft").args(command.split(' ')), "");
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    /// Loads rules in the file format of nft(8).
    pub fn load_nft(&self, rules: &str) {
        self.run_program(Command::new("nft").args(["-f", "-"]), rules);
    }

    /// Runs a program in this namespace with this input, and returns its output. The program must succeed.
    pub fn run_program(&self, command: &mut Command, input: &str) -> String {
        let output = self.output(command, input);
        assert!(output.status.success(), "{command:?}: {}\ninput: {input}", text(&output.stderr));
        text(&output.stdout)
    }

    fn output(&self, command: &mut Command, input: &str) -> Output {
        command.env("PATH", PROGRAM_PATH).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        self.run(|| {
            let mut child = command.spawn().unwrap_or_else(|error| {
                panic!("{command:?}: {error}: install the Debian packages iproute2, nftables and iptables")
            });
            child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
            child.wait_with_output().unwrap()
        })
    }

    /// Adds addresses to an interface. The prefix has 24 bits for IPv4, and 64 bits for IPv6.
    ///
    /// IPv6 addresses are usable at once, because duplicate address detection is off.
    pub fn add_addresses(&self, interface: &str, addresses: &[IpAddr]) {
        let add = |address: &IpAddr| {
            let options = if address.is_ipv4() { "/24" } else { "/64 nodad" };
            format!("address add {address}{options} dev {interface}\n")
        };
        self.ip(&addresses.iter().map(add).collect::<String>());
    }

    /// Adds a default route for each gateway.
    pub fn add_default_routes(&self, gateways: &[IpAddr]) {
        let add = |gateway: &IpAddr| {
            let destination = if gateway.is_ipv4() { "0.0.0.0/0" } else { "::/0" };
            format!("route add {destination} via {gateway}\n")
        };
        self.ip(&gateways.iter().map(add).collect::<String>());
    }

    /// Writes a sysctl of this namespace. The parameter `path` is relative to `/proc/sys/net`.
    pub fn set_sysctl(&self, path: &str, value: &str) {
        let write_result = self.run(|| std::fs::write(format!("/proc/sys/net/{path}"), value));
        write_result.unwrap_or_else(|error| panic!("cannot write {value} to the sysctl {path}: {error}"));
    }

    /// Reads a sysctl of this namespace. The parameter `path` is relative to `/proc/sys/net`.
    pub fn read_sysctl(&self, path: &str) -> String {
        let value = self.run(|| std::fs::read_to_string(format!("/proc/sys/net/{path}")));
        value.unwrap_or_else(|error| panic!("cannot read the sysctl {path}: {error}")).trim().to_owned()
    }

    /// Returns a counter of `/proc/net/snmp`, for example `OutRsts` of `Tcp`.
    pub fn snmp_counter(&self, protocol: &str, name: &str) -> u64 {
        let snmp = self.run(|| std::fs::read_to_string("/proc/thread-self/net/snmp").unwrap());
        let mut lines = snmp.lines().filter(|line| line.starts_with(&format!("{protocol}:")));
        let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
        let column = names.split(' ').position(|column| column == name).unwrap();
        values.split(' ').nth(column).unwrap().parse().unwrap()
    }

    /// Returns the path with which ip(8) refers to this namespace.
    pub(crate) fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }
}

/// Runs `code` on a new thread, so that the calling thread stays in its own namespace.
fn run_on_new_thread<T: Send>(code: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| match scope.spawn(code).join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isolated;

    #[test]
    fn each_namespace_has_its_own_sysctls() {
        isolated(|| {
            let (first, second) = (Namespace::new(), Namespace::new());
            first.set_sysctl("ipv4/ip_forward", "1");
            second.set_sysctl("ipv4/ip_forward", "0");
            assert_eq!(first.read_sysctl("ipv4/ip_forward"), "1");
            assert_eq!(second.read_sysctl("ipv4/ip_forward"), "0");
        });
    }

    #[test]
    fn each_namespace_has_its_own_nftables_rules() {
        isolated(|| {
            let (first, second) = (Namespace::new(), Namespace::new());
            first.load_nft("table inet example {}\n");
            assert!(first.nft("list tables").contains("example"));
            assert_eq!(second.nft("list tables"), "");
            assert!(second.try_nft("list table inet example").unwrap_err().contains("No such file"));
        });
    }

    #[test]
    fn failed_command_panics_with_its_error_message() {
        isolated(|| {
            let namespace = Namespace::new();
            let failed_command =
                std::panic::catch_unwind(|| namespace.ip("link set missing up")).unwrap_err();
            let message = failed_command.downcast_ref::<String>().unwrap();
            assert!(message.contains("missing"), "{message}");
        });
    }
}

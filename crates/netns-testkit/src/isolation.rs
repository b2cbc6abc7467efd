//! Runs a test or a program again in private namespaces, where every process that it starts ends with it. Does I/O.
//!
//! The private process has a tmpfs of its own on `/run` for its files.

use std::any::type_name;
use std::io::Read;
use std::process::{Child, Command, ExitStatus, Stdio};

/// Set in the environment of the private process.
const VARIABLE: &str = "NETNS_TESTKIT_ISOLATED";

/// Runs a `#[test]` function's closure as root of a user namespace, with an empty network.
///
/// It must be called from the test function itself, because the closure's type has the test's name.
pub fn isolated<F: FnOnce()>(test: F) {
    if is_private() {
        set_up_private_process();
        return test();
    }
    let mut command = unshare(&["--user", "--map-root-user", "--mount-proc"]);
    let child = command
        .args([test_name::<F>(), "--exact", "--nocapture", "--test-threads=1"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = require_unshare(child);
    // The private process exits at the end of its standard input, which `wait_with_output` would close at once.
    let stdin = child.stdin.take();
    let output = child.wait_with_output().unwrap();
    drop(stdin);
    let log = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    // Without the count, a name that matches no test would pass.
    let passed = output.status.success() && log.contains("test result: ok. 1 passed");
    assert!(
        passed,
        "the test failed in its private namespaces (user namespaces must be allowed here):\n{log}"
    );
}

/// Runs this program again as root in private namespaces, with the same arguments, and returns its exit status.
///
/// Returns `None` in the private process, which then does the program's work. Only root can call this.
pub fn isolate_program() -> Option<ExitStatus> {
    if is_private() {
        set_up_private_process();
        return None;
    }
    let mut child = require_unshare(unshare(&[]).args(std::env::args_os().skip(1)).spawn());
    // As above, `wait` would close the standard input at once.
    let stdin = child.stdin.take();
    let status = child.wait().unwrap();
    drop(stdin);
    Some(status)
}

fn is_private() -> bool {
    std::env::var_os(VARIABLE).is_some()
}

/// A command that runs this executable again in network, mount and process namespaces of its own.
fn unshare(options: &[&str]) -> Command {
    let mut command = Command::new("unshare");
    command
        .args(["--net", "--mount", "--pid", "--fork", "--kill-child"])
        .args(options)
        .arg("--")
        .arg(std::env::current_exe().unwrap())
        .env(VARIABLE, "1")
        .stdin(Stdio::piped());
    command
}

fn require_unshare(child: std::io::Result<Child>) -> Child {
    child.unwrap_or_else(|error| panic!("unshare: {error}: install the Debian package util-linux"))
}

/// Ends the private process when its parent ends, and mounts its `/run`.
fn set_up_private_process() {
    std::thread::spawn(exit_at_end_of_input);
    let mounted = Command::new("mount").args(["-t", "tmpfs", "tmpfs", "/run"]).status();
    assert!(mounted.unwrap().success(), "cannot mount a tmpfs on /run");
}

/// Exits when the parent has closed its end of the pipe. The first process of a namespace ignores signals.
fn exit_at_end_of_input() {
    // An error means the same as the end: the parent waits no longer.
    let _ = std::io::stdin().read(&mut [0]);
    std::process::exit(1);
}

/// Returns the name of the test function that created the closure `F`, as libtest knows it.
fn test_name<F>() -> &'static str {
    let path = type_name::<F>().trim_end_matches("::{{closure}}");
    path.split_once("::").map_or(path, |(_crate, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn isolated_test_is_root_with_an_empty_network_and_run_directory() {
        isolated(|| {
            assert!(rustix::process::geteuid().is_root());
            let interfaces = std::fs::read_to_string("/proc/self/net/dev").unwrap();
            assert_eq!(interfaces.lines().filter(|line| line.contains(':')).count(), 1, "{interfaces}");
            assert_eq!(std::fs::read_dir("/run").unwrap().count(), 0);
        });
    }

    #[test]
    fn failure_of_an_isolated_test_is_reported_with_its_output() {
        let result = std::panic::catch_unwind(|| isolated(|| panic!("reason of the failure")));
        let panic = result.unwrap_err();
        if is_private() {
            std::panic::resume_unwind(panic);
        }
        let message = panic.downcast_ref::<String>().unwrap();
        assert!(message.contains("reason of the failure"), "{message}");
    }

    #[test]
    fn name_that_matches_no_test_is_a_failure() {
        let result = std::panic::catch_unwind(call_from_another_function);
        assert!(result.unwrap_err().downcast_ref::<String>().unwrap().contains("0 passed"));
    }

    fn call_from_another_function() {
        isolated(|| ());
    }
}

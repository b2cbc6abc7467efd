//! Runs a test or a program again in private namespaces. At the end of the test or program, the kernel kills all
//! processes in these namespaces. Does I/O.
//!
//! The isolated process has its own tmpfs on `/run` for its files.

use std::any::type_name;
use std::io::{Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::mount::MountFlags;

/// The environment variable that marks the isolated process.
const ISOLATED_PROCESS_VARIABLE: &str = "NETNS_TESTKIT_ISOLATED";

/// The start of the messages of [`report_not_tested`].
const NOT_TESTED: &str = "NOT TESTED:";

/// Runs a `#[test]` function's closure as root of a user namespace, with an empty network.
///
/// Call `isolated` in the test function itself, because the closure's type contains the name of the calling function.
pub fn isolated<F: FnOnce()>(test: F) {
    run_isolated(test, &["--user", "--map-root-user", "--mount-proc"]);
}

/// Does the same as [`isolated`], but the user is `nobody` (65534) instead of root. The user has all capabilities.
///
/// The test can give up capabilities with [`crate::privileges::keep_capabilities`].
pub fn isolated_as_nobody<F: FnOnce()>(test: F) {
    run_isolated(test, &["--user", "--map-user=65534", "--map-group=65534", "--keep-caps", "--mount-proc"]);
}

fn run_isolated<F: FnOnce()>(test: F, unshare_options: &[&str]) {
    if is_isolated_process() {
        set_up_isolated_process();
        return test();
    }
    let child = unshare_command(unshare_options)
        .args([test_name::<F>(), "--exact", "--nocapture", "--test-threads=1"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = expect_child(child);
    // `wait_with_output` must not close the standard input, because the isolated process exits when its standard input
    // is closed.
    let stdin = child.stdin.take();
    let output = child.wait_with_output().unwrap();
    drop(stdin);
    let log = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    // The number of passed tests is checked, because libtest also succeeds if no test has this name.
    let has_passed = output.status.success() && log.contains("test result: ok. 1 passed");
    assert!(
        has_passed,
        "the test failed in its private namespaces (user namespaces must be allowed here):\n{log}"
    );
    for line in log.lines().filter(|line| line.contains(NOT_TESTED)) {
        // Not eprintln!, because libtest hides the output of that macro if a test succeeds.
        let _ = writeln!(std::io::stderr(), "{line}");
    }
}

/// Reports that a part of a test cannot run here. The message appears although the test succeeds.
pub fn report_not_tested(reason: &str) {
    eprintln!("{NOT_TESTED} {reason}");
}

/// Runs this program again as root in private namespaces, with the same arguments, and returns its exit status.
///
/// Returns `None` in the isolated process, so that the caller does the program's work there. Only root can call this
/// function.
pub fn isolate_program() -> Option<ExitStatus> {
    if is_isolated_process() {
        set_up_isolated_process();
        return None;
    }
    let mut child = expect_child(unshare_command(&[]).args(std::env::args_os().skip(1)).spawn());
    // `wait` must not close the standard input, because the isolated process exits when its standard input is closed.
    let stdin = child.stdin.take();
    let status = child.wait().unwrap();
    drop(stdin);
    Some(status)
}

fn is_isolated_process() -> bool {
    std::env::var_os(ISOLATED_PROCESS_VARIABLE).is_some()
}

/// Returns a command that runs this executable again in new network, mount and process namespaces.
fn unshare_command(options: &[&str]) -> Command {
    let mut command = Command::new("unshare");
    command
        .args(["--net", "--mount", "--pid", "--fork", "--kill-child"])
        .args(options)
        .arg("--")
        .arg(std::env::current_exe().unwrap())
        .env(ISOLATED_PROCESS_VARIABLE, "1")
        .stdin(Stdio::piped());
    command
}

fn expect_child(child: std::io::Result<Child>) -> Child {
    child.unwrap_or_else(|error| panic!("unshare: {error}: install the Debian package util-linux"))
}

/// Mounts a private `/run`, and makes this process exit when its parent exits.
fn set_up_isolated_process() {
    std::thread::spawn(exit_at_end_of_input);
    let mount_result = rustix::mount::mount("tmpfs", "/run", "tmpfs", MountFlags::empty(), None);
    mount_result.unwrap_or_else(|error| panic!("cannot mount a tmpfs on /run: {error}"));
}

/// Exits when the parent closes its end of the pipe. A signal would not work, because the first process of a
/// namespace ignores signals that have no handler.
fn exit_at_end_of_input() {
    // A read error also means that the parent has exited, so errors are ignored.
    let _ = std::io::stdin().read(&mut [0]);
    std::process::exit(1);
}

/// Returns the name of the test function that created the closure `F`, in the form that libtest uses.
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
        let panic_payload = result.unwrap_err();
        if is_isolated_process() {
            std::panic::resume_unwind(panic_payload);
        }
        let message = panic_payload.downcast_ref::<String>().unwrap();
        assert!(message.contains("reason of the failure"), "{message}");
    }

    #[test]
    fn a_call_of_isolated_outside_of_a_test_panics() {
        let result = std::panic::catch_unwind(call_isolated_outside_of_a_test);
        assert!(result.unwrap_err().downcast_ref::<String>().unwrap().contains("0 passed"));
    }

    fn call_isolated_outside_of_a_test() {
        isolated(|| ());
    }
}

//! Runs each test in a process of its own, in user, network, mount and process namespaces of its own.

use std::any::type_name;
use std::io::Read;
use std::process::{Command, Stdio};

/// Set in the test's own process.
const INSIDE: &str = "AKROBATEO_TEST_ISOLATED";

/// Runs `test` where it is root over an empty network, and where all that it starts ends with it.
pub fn isolated<F: FnOnce()>(test: F) {
    if std::env::var_os(INSIDE).is_some() {
        std::thread::spawn(end_with_parent);
        return test();
    }
    let mut child = Command::new("unshare")
        .args(["--user", "--map-root-user", "--net", "--mount-proc", "--pid", "--fork", "--kill-child", "--"])
        .arg(std::env::current_exe().unwrap())
        .args([name::<F>(), "--exact", "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("unshare is missing: install the Debian package util-linux");
    let alive = child.stdin.take();
    let output = child.wait_with_output().unwrap();
    drop(alive);
    let printed = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    // Without the count, a name that matches no test would pass.
    let passed = output.status.success() && printed.contains("test result: ok. 1 passed");
    assert!(
        passed,
        "in its own namespaces (user namespaces must be allowed here), the test failed:\n{printed}"
    );
}

/// The name of the test that made the closure `F`, as libtest knows it: its path without the crate.
fn name<F>() -> &'static str {
    let path = type_name::<F>().trim_end_matches("::{{closure}}");
    path.split_once("::").map_or(path, |(_, name)| name)
}

/// As the first process of its namespace, it takes all others with it.
fn end_with_parent() {
    let _ = std::io::stdin().read(&mut [0]);
    std::process::exit(1);
}

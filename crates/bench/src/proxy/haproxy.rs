//! `HAProxy` in TCP mode, from Debian's package. Does I/O.

use std::path::PathBuf;

use netns_testkit::Namespace;

use super::process::Process;
use super::programs::{Programs, write_config};
use crate::error::{BenchError, run_command};
use crate::network::addr;

const PROGRAM: &str = "usr/sbin/haproxy";

/// Starts `HAProxy`, optionally with a PROXY header of version 2, and with forced splicing.
pub(crate) fn start(
    pod: &Namespace,
    programs: &Programs,
    proxy_header: bool,
    splice: bool,
) -> Result<Process, BenchError> {
    let path = PathBuf::from(format!("/run/haproxy-{proxy_header}-{splice}.cfg"));
    write_config(&path, &config(proxy_header, splice))?;
    Process::start(pod, programs.packaged(PROGRAM).arg("-db").arg("-f").arg(&path))
}

/// Returns the version.
pub(crate) fn version(programs: &Programs) -> Result<String, BenchError> {
    let output = run_command(programs.packaged(PROGRAM).arg("-v"))?;
    Ok(output.split(' ').nth(2).unwrap_or(&output).to_owned())
}

fn config(proxy_header: bool, splice: bool) -> String {
    let splice = if splice { "  option splice-request\n  option splice-response\n" } else { "" };
    let proxy_header = if proxy_header { " send-proxy-v2" } else { "" };
    format!(
        "defaults
  mode tcp
  timeout connect 5s
  timeout client 1m
  timeout server 1m
{splice}listen service
  bind :{}
  server service {}{proxy_header}
",
        addr::FIRST_PORT,
        addr::CLUSTER_IP
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splicing_and_proxy_header_are_optional() {
        let plain = config(false, false);
        assert!(!plain.contains("splice") && !plain.contains("send-proxy"));
        let full = config(true, true);
        for option in ["splice-request", "splice-response", "send-proxy-v2"] {
            assert!(full.contains(option), "{full}");
        }
    }
}

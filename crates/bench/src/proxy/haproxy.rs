//! `HAProxy` in TCP mode, from Debian's package. Does I/O.

use std::path::PathBuf;

use netns_testkit::Namespace;

use super::process::Process;
use super::programs::{Programs, write_config};
use crate::error::{BenchError, run_command};
use crate::network::addr;

const PROGRAM: &str = "usr/sbin/haproxy";

/// Starts `HAProxy`. If `sends_proxy_header` is true, `HAProxy` sends PROXY headers of version 2. If `forces_splicing`
/// is true, `HAProxy` is forced to splice.
pub(crate) fn start(
    pod: &Namespace,
    programs: &Programs,
    sends_proxy_header: bool,
    forces_splicing: bool,
) -> Result<Process, BenchError> {
    let path = PathBuf::from(format!("/run/haproxy-{sends_proxy_header}-{forces_splicing}.cfg"));
    write_config(&path, &config(sends_proxy_header, forces_splicing))?;
    Process::start(pod, programs.packaged_command(PROGRAM).arg("-db").arg("-f").arg(&path))
}

/// Returns the version.
pub(crate) fn version(programs: &Programs) -> Result<String, BenchError> {
    let output = run_command(programs.packaged_command(PROGRAM).arg("-v"))?;
    Ok(output.split(' ').nth(2).unwrap_or(&output).to_owned())
}

fn config(sends_proxy_header: bool, forces_splicing: bool) -> String {
    let splice_options =
        if forces_splicing { "  option splice-request\n  option splice-response\n" } else { "" };
    let send_proxy_option = if sends_proxy_header { " send-proxy-v2" } else { "" };
    format!(
        "defaults
  mode tcp
  timeout connect 5s
  timeout client 1m
  timeout server 1m
{splice_options}listen service
  bind :{}
  server service {}{send_proxy_option}
",
        addr::FIRST_SERVICE_PORT,
        addr::CLUSTER_IP
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splicing_and_proxy_header_are_optional() {
        let default_config = config(false, false);
        assert!(!default_config.contains("splice") && !default_config.contains("send-proxy"));
        let full_config = config(true, true);
        for option in ["splice-request", "splice-response", "send-proxy-v2"] {
            assert!(full_config.contains(option), "{full_config}");
        }
    }
}

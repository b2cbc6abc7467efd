//! `HAProxy` in TCP mode, from Debian's package.

use std::path::PathBuf;

use super::process::Process;
use super::{Programs, configured};
use crate::failure::{Failure, printed};
use crate::namespace::Namespace;
use crate::network::at;

/// Starts it; with a PROXY header of version 2 if `header`, and splicing whatever comes if `splice`.
pub(crate) fn start(
    pod: &Namespace,
    programs: &Programs,
    header: bool,
    splice: bool,
) -> Result<Process, Failure> {
    let path = PathBuf::from(format!("/run/haproxy-{header}-{splice}.cfg"));
    configured(&path, &configuration(header, splice))?;
    Process::start(pod, programs.packaged("usr/sbin/haproxy").arg("-db").arg("-f").arg(&path))
}

/// Its version.
pub(crate) fn version(programs: &Programs) -> Result<String, Failure> {
    let said = printed(programs.packaged("usr/sbin/haproxy").arg("-v"))?;
    Ok(said.split(' ').nth(2).unwrap_or(&said).to_owned())
}

fn configuration(header: bool, splice: bool) -> String {
    let splice = if splice { "  option splice-request\n  option splice-response\n" } else { "" };
    let header = if header { " send-proxy-v2" } else { "" };
    format!(
        "defaults
  mode tcp
  timeout connect 5s
  timeout client 1m
  timeout server 1m
{splice}listen service
  bind :{}
  server service {}{header}
",
        at::FIRST_PORT,
        at::CLUSTER_IP
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_splices_and_sends_a_header_only_when_told_to() {
        let plain = configuration(false, false);
        assert!(!plain.contains("splice") && !plain.contains("send-proxy"));
        let all = configuration(true, true);
        assert!(
            all.contains("splice-request")
                && all.contains("splice-response")
                && all.contains("send-proxy-v2")
        );
    }
}

//! The stream module of nginx, from Debian's packages. Does I/O.
//!
//! nginx can send PROXY headers of version 1 only.

use std::path::PathBuf;

use netns_testkit::Namespace;

use super::process::Process;
use super::programs::{Programs, write_config};
use crate::error::{BenchError, Context, run_command};
use crate::network::addr;

const PROGRAM: &str = "usr/sbin/nginx";

/// Starts nginx.
pub(crate) fn start(pod: &Namespace, programs: &Programs) -> Result<Process, BenchError> {
    let runtime_directory = PathBuf::from("/run/nginx");
    std::fs::create_dir_all(&runtime_directory).context("/run/nginx")?;
    let path = runtime_directory.join("nginx.conf");
    let stream_module = programs.package_directory.join("usr/lib/nginx/modules/ngx_stream_module.so");
    write_config(&path, &config(&stream_module.display().to_string()))?;
    let mut command = programs.packaged_command(PROGRAM);
    Process::start(pod, command.arg("-p").arg(&runtime_directory).arg("-c").arg(&path).args(["-e", "stderr"]))
}

/// Returns the version.
pub(crate) fn version(programs: &Programs) -> Result<String, BenchError> {
    let output = run_command(programs.packaged_command(PROGRAM).arg("-v"))?;
    Ok(output.rsplit('/').next().unwrap_or(&output).to_owned())
}

fn config(module: &str) -> String {
    format!(
        "load_module {module};
daemon off;
user root;
pid /run/nginx/pid;
worker_processes auto;
error_log stderr;
events {{ worker_connections 32768; }}
stream {{
  server {{
    listen {port};
    proxy_pass {}:{port};
    proxy_protocol on;
  }}
}}
",
        addr::CLUSTER_IP,
        port = addr::FIRST_SERVICE_PORT,
    )
}

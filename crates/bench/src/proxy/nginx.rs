//! nginx's stream module, from Debian's packages. It sends PROXY headers of version 1 only.

use std::path::PathBuf;

use super::process::Process;
use super::{Programs, configured};
use crate::failure::{Failure, Tried, printed};
use crate::namespace::Namespace;
use crate::network::at;

/// Starts it.
pub(crate) fn start(pod: &Namespace, programs: &Programs) -> Result<Process, Failure> {
    let home = PathBuf::from("/run/nginx");
    std::fs::create_dir_all(&home).tried("/run/nginx")?;
    let path = home.join("nginx.conf");
    let module = programs.packages.join("usr/lib/nginx/modules/ngx_stream_module.so");
    configured(&path, &configuration(&module.display().to_string()))?;
    let mut command = programs.packaged("usr/sbin/nginx");
    Process::start(pod, command.arg("-p").arg(&home).arg("-c").arg(&path).args(["-e", "stderr"]))
}

/// Its version.
pub(crate) fn version(programs: &Programs) -> Result<String, Failure> {
    let said = printed(programs.packaged("usr/sbin/nginx").arg("-v"))?;
    Ok(said.rsplit('/').next().unwrap_or(&said).to_owned())
}

fn configuration(module: &str) -> String {
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
        at::CLUSTER_IP,
        port = at::FIRST_PORT,
    )
}

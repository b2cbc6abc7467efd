//! The process of the operator, and its metrics. Does I/O.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use netns_testkit::http;

use crate::cluster::operator_kubeconfig;
use crate::error::ScaleError;
use crate::program::Program;
use crate::prometheus::Samples;

/// The address of the operator's HTTP server.
const HTTP_ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);
const HTTP_TIMEOUT: Duration = Duration::from_secs(5);

/// Starts the operator.
pub(crate) fn start_operator(binary: &Path, directory: &Path) -> Result<Program, ScaleError> {
    let mut command = Command::new(binary);
    command
        .args(["--http-address", &HTTP_ADDRESS.to_string(), "--kubeconfig"])
        .arg(operator_kubeconfig(directory));
    Program::start("akrobateo", &mut command, directory)
}

/// The progress of the operator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// True if the operator holds the Lease.
    pub(crate) is_leader: bool,
    /// The number of reconciliations since the start.
    pub(crate) reconciliations: u64,
}

/// Reads the metrics of the operator. Returns no progress while the HTTP server does not answer.
pub(crate) fn read_progress() -> Progress {
    let Some(text) = http::get(HTTP_ADDRESS, "/metrics", HTTP_TIMEOUT) else { return Progress::default() };
    let samples = Samples::parse(&text);
    Progress {
        is_leader: samples.sum("akrobateo_leader", &[]) > 0.0,
        reconciliations: to_count(samples.sum("akrobateo_reconciles_total", &[])),
    }
}

/// Converts a counter of Prometheus, which is a floating-point number.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counters are small and not negative"
)]
fn to_count(value: f64) -> u64 {
    value as u64
}

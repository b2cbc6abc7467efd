//! Clients that open connections and UDP flows to all nodes as fast as they can, and counts what fails. Does I/O.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use akrobateo_core::{Family, Protocol};
use netns_testkit::laboratory::{Flow, Laboratory};
use netns_testkit::{DEADLINE, Namespace};
use rustix::net::sockopt::set_socket_linger;

use crate::cluster::PORT;

/// The environment variable with the number of flows of a test.
const COUNT_VARIABLE: &str = "AKROBATEO_DATA_PATH_FLOWS";
/// The number of clients at the same time.
const CLIENTS: usize = 4;
/// The time after which a flow counts as failed. Lost packets of connections are repeated earlier.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The number of failures that end a phase early.
const MAX_FAILURES: usize = 20;

/// Returns the number of flows of a test.
pub(crate) fn flow_count(default: usize) -> usize {
    std::env::var(COUNT_VARIABLE).map_or(default, |count| count.parse().unwrap())
}

/// The outcome of one phase.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) flows: usize,
    /// The failed flows, with their errors.
    pub(crate) failures: Vec<String>,
    /// The segments that the client or a pod has sent again. Each stands for a connection that was held up.
    pub(crate) retransmissions: u64,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { flows, failures, retransmissions } = self;
        write!(f, "{flows} flows, {} failed, {retransmissions} segments sent again", failures.len())
    }
}

/// Prepares the laboratory: a segment is only sent again if it is lost, however slow the machine is.
pub(crate) fn prepare(laboratory: &Laboratory) {
    for namespace in endpoints(laboratory) {
        namespace.set_sysctl("ipv4/tcp_early_retrans", "0");
        namespace.set_sysctl("ipv4/tcp_rto_min_us", "1000000");
    }
    // Closed flows leave the table of conntrack early, so that it does not become full.
    for node in &laboratory.nodes {
        for (timeout, seconds) in [("tcp_timeout_close", "1"), ("udp_timeout", "5")] {
            node.namespace.set_sysctl(&format!("netfilter/nf_conntrack_{timeout}"), seconds);
        }
    }
}

/// Stops the clients, also when a change panics.
struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs `change` again and again, until clients have opened `count` flows meanwhile.
pub(crate) fn run_phase(laboratory: &Laboratory, count: usize, mut change: impl FnMut()) -> Outcome {
    let (is_over, flows, failures) = (AtomicBool::new(false), AtomicUsize::new(0), Mutex::new(Vec::new()));
    let before = retransmissions(laboratory);
    let client = |number: usize| {
        laboratory.client.enter();
        let mut turn = number;
        while !is_over.load(Ordering::Relaxed) {
            turn += CLIENTS + 1;
            if let Err((flow, error)) = open_flow(laboratory, turn) {
                failures.lock().unwrap().push(format!("{flow}: {error}"));
            }
            flows.fetch_add(1, Ordering::Relaxed);
        }
    };
    std::thread::scope(|scope| {
        let is_over = SetOnDrop(&is_over);
        (0..CLIENTS).for_each(|number| _ = scope.spawn(move || client(number)));
        let start = Instant::now();
        let has_failed = || failures.lock().unwrap().len() > MAX_FAILURES;
        while flows.load(Ordering::Relaxed) < count && start.elapsed() < DEADLINE * 5 && !has_failed() {
            change();
        }
        drop(is_over);
    });
    Outcome {
        flows: flows.into_inner(),
        failures: failures.into_inner().unwrap(),
        retransmissions: retransmissions(laboratory) - before,
    }
}

/// Opens a flow, asks once, and closes the flow.
fn open_flow(laboratory: &Laboratory, number: usize) -> Result<(), (String, io::Error)> {
    let node = &laboratory.nodes[number % laboratory.nodes.len()];
    let family = Family::ALL[number / 3 % 2];
    let protocol = [Protocol::Tcp, Protocol::Tcp, Protocol::Udp][number / 6 % 3];
    let to = SocketAddr::new(node.address(family), PORT);
    let ask = || {
        let mut flow = Flow::open(protocol, None, to, TIMEOUT)?;
        if let Flow::Tcp(stream) = &flow {
            // A reset leaves no state behind. The client would have no free ports otherwise.
            set_socket_linger(stream, Some(Duration::ZERO))?;
        }
        flow.ask(1)
    };
    ask().map(|_| ()).map_err(|error| (format!("{protocol} to {to}"), error))
}

fn endpoints(laboratory: &Laboratory) -> impl Iterator<Item = &Namespace> {
    let pods = laboratory.nodes.iter().flat_map(|node| &node.pods).map(|pod| &pod.namespace);
    pods.chain([&laboratory.client])
}

fn retransmissions(laboratory: &Laboratory) -> u64 {
    endpoints(laboratory).map(|namespace| namespace.snmp_counter("Tcp", "RetransSegs")).sum()
}

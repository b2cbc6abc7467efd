//! Runs clients that open connections and UDP flows to nodes as fast as they can. Counts the flows that fail. Does I/O.

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

use crate::cluster::SERVICE_PORT;

/// The environment variable with the number of flows of a test.
const FLOW_COUNT_VARIABLE: &str = "AKROBATEO_DATA_PATH_FLOWS";
/// The number of clients that open flows at the same time.
pub(crate) const CLIENT_COUNT: usize = 4;
/// The time after which a flow has failed. TCP repeats a lost packet before this time.
const FLOW_TIMEOUT: Duration = Duration::from_secs(5);
/// The number of failures that end a phase early.
const MAX_FAILURES: usize = 20;

/// Returns the number of flows of a test.
pub(crate) fn flow_count(default: usize) -> usize {
    std::env::var(FLOW_COUNT_VARIABLE).map_or(default, |count| count.parse().unwrap())
}

/// The outcome of one phase.
#[derive(Debug, Default)]
pub(crate) struct LoadOutcome {
    pub(crate) flows: usize,
    /// The failed flows, with their errors.
    pub(crate) failures: Vec<String>,
    /// The number of segments that the client has sent again. Each repeated segment has delayed a connection.
    pub(crate) client_retransmissions: u64,
    /// The number of segments that pods have sent again. Some of these segments may belong to connections that have
    /// failed in an earlier phase.
    pub(crate) pod_retransmissions: u64,
}

impl fmt::Display for LoadOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { flows, failures, client_retransmissions, pod_retransmissions } = self;
        let failures = failures.len();
        write!(
            f,
            "{flows} flows, {failures} failed, {client_retransmissions} segments sent again by the client, \
             {pod_retransmissions} by pods"
        )
    }
}

impl LoadOutcome {
    /// Returns the number of all segments that were sent again.
    pub(crate) fn retransmissions(&self) -> u64 {
        self.client_retransmissions + self.pod_retransmissions
    }
}

/// Prepares the laboratory: TCP does not repeat a segment on a slow machine if the segment is not lost.
pub(crate) fn prepare_for_load(laboratory: &Laboratory) {
    for netns in pod_netns(laboratory).chain([&laboratory.client]) {
        netns.set_sysctl("ipv4/tcp_early_retrans", "0");
        netns.set_sysctl("ipv4/tcp_rto_min_us", "1000000");
    }
    // Closed flows leave the conntrack table early, so that the table does not become full.
    for node in &laboratory.nodes {
        for (timeout, seconds) in [("tcp_timeout_close", "1"), ("udp_timeout", "5")] {
            node.namespace.set_sysctl(&format!("netfilter/nf_conntrack_{timeout}"), seconds);
        }
    }
}

/// Stops the clients when this value is dropped, also after a change has panicked.
struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The clients of some nodes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load<'a> {
    pub(crate) laboratory: &'a Laboratory,
    /// The nodes to which the clients open flows.
    pub(crate) nodes: &'a [usize],
}

impl Load<'_> {
    /// Runs `change` repeatedly until the clients have opened `count` flows.
    pub(crate) fn run_phase(self, count: usize, mut change: impl FnMut()) -> LoadOutcome {
        let laboratory = self.laboratory;
        let (is_over, flows, failures) =
            (AtomicBool::new(false), AtomicUsize::new(0), Mutex::new(Vec::new()));
        let count_retransmissions =
            || [sum_retransmissions([&laboratory.client]), sum_retransmissions(pod_netns(laboratory))];
        let retransmissions_before = count_retransmissions();
        let client = |number: usize| {
            laboratory.client.enter();
            let mut flow_number = number;
            while !is_over.load(Ordering::Relaxed) {
                flow_number += CLIENT_COUNT + 1;
                if let Err((flow, error)) = self.open_flow(flow_number) {
                    failures.lock().unwrap().push(format!("{flow}: {error}"));
                }
                flows.fetch_add(1, Ordering::Relaxed);
            }
        };
        std::thread::scope(|scope| {
            let is_over = SetOnDrop(&is_over);
            (0..CLIENT_COUNT).for_each(|number| _ = scope.spawn(move || client(number)));
            let start = Instant::now();
            let has_failed = || failures.lock().unwrap().len() > MAX_FAILURES;
            while flows.load(Ordering::Relaxed) < count && start.elapsed() < DEADLINE * 5 && !has_failed() {
                change();
            }
            drop(is_over);
        });
        let retransmissions_after = count_retransmissions();
        LoadOutcome {
            flows: flows.into_inner(),
            failures: failures.into_inner().unwrap(),
            client_retransmissions: retransmissions_after[0] - retransmissions_before[0],
            pod_retransmissions: retransmissions_after[1] - retransmissions_before[1],
        }
    }

    /// Opens a flow, sends one request, and closes the flow.
    fn open_flow(self, number: usize) -> Result<(), (String, io::Error)> {
        let node = self.laboratory.node(self.nodes[number % self.nodes.len()]);
        let family = Family::ALL[number / 3 % 2];
        let protocol = [Protocol::Tcp, Protocol::Tcp, Protocol::Udp][number / 6 % 3];
        let to = SocketAddr::new(node.address(family), SERVICE_PORT);
        let ask = || {
            let mut flow = Flow::open(protocol, None, to, FLOW_TIMEOUT)?;
            if let Flow::Tcp(stream) = &flow {
                // The client resets the connection, because after a reset the kernels keep no state. After a normal
                // close, the source port would remain in use.
                set_socket_linger(stream, Some(Duration::ZERO))?;
            }
            flow.ask(1)
        };
        ask().map(|_| ()).map_err(|error| (format!("{protocol} to {to}"), error))
    }
}

fn pod_netns(laboratory: &Laboratory) -> impl Iterator<Item = &Namespace> {
    laboratory.nodes.iter().flat_map(|node| &node.pods).map(|pod| &pod.namespace)
}

fn sum_retransmissions<'a>(netns_list: impl IntoIterator<Item = &'a Namespace>) -> u64 {
    netns_list.into_iter().map(|netns| netns.snmp_counter("Tcp", "RetransSegs")).sum()
}

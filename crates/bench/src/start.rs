//! How long proxies take until they forward. I/O only.

use std::io::{Read, Write};
use std::net::Ipv4Addr;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use crate::client::{dial, once};
use crate::failure::{Failure, Tried};
use crate::namespace::Namespace;
use crate::proxy::process::Process;
use crate::proxy::{self, Programs, Protocol, akrobateo, klipper};
use crate::route::Route;
use crate::variant::{Variant, Way};
use crate::watch::Watch;

/// What a client does that gives up and tries again.
const CLIENTS_TIMEOUT: Duration = Duration::from_millis(2500);
/// Between two looks whether something is so; short against what is measured.
const LOOK: Duration = Duration::from_micros(100);
/// When it is no start any more.
pub(crate) const DEADLINE: Duration = Duration::from_mins(2);

/// Rounds of starts that take seconds.
const SLOW_ROUNDS: usize = 3;

/// What a start was timed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Until {
    /// All rules are in the kernel.
    Active,
    /// The readiness probe says so; of our own only, for the peer has none.
    Ready,
    /// A client, trying from before the start, has its first answer.
    FirstConnection,
}

/// One start, timed from the program's exec.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Start {
    /// The variant's name.
    pub(crate) variant: &'static str,
    /// The round in which it was taken.
    pub(crate) round: usize,
    /// What it was timed to.
    pub(crate) until: Until,
    /// How long it took.
    pub(crate) seconds: f64,
}

/// Whether it is to be timed: what takes seconds, in a few rounds only.
pub(crate) fn worthwhile(variant: Variant, until: Until, round: usize) -> bool {
    match until {
        Until::Active => variant.ports == 1 || round < SLOW_ROUNDS,
        Until::Ready => variant.way == Way::Kernel,
        Until::FirstConnection => variant.ports == 1 && (variant.way == Way::Kernel || round < SLOW_ROUNDS),
    }
}

/// Starts the variant's proxy in a new network, and times it.
pub(crate) fn time(
    variant: Variant,
    until: Until,
    round: usize,
    programs: &Programs,
) -> Result<Start, Failure> {
    let route = Route::without_proxy(variant)?;
    let pod = &route.network.pod;
    let taken = match (until, variant.way) {
        (Until::FirstConnection, _) => first_connection(&route, programs)?,
        (Until::Active, Way::Klipper(iptables)) => klipper::set(pod, iptables, Protocol::Tcp, variant.ports)?,
        (Until::Active | Until::Ready, _) => {
            let args = akrobateo::kernel(Protocol::Tcp, variant.ports);
            let watch = Watch::new(pod)?;
            let start = Instant::now();
            let mut process = akrobateo::start(pod, &programs.lb, &args)?;
            match until {
                Until::Ready => until_ready(pod, &mut process)?,
                _ => watch.changed(DEADLINE)?,
            }
            start.elapsed()
        }
    };
    Ok(Start { variant: variant.name, round, until, seconds: taken.as_secs_f64() })
}

/// Waits until the proxy in `pod` says that its rules are in the kernel.
fn until_ready(pod: &Namespace, process: &mut Process) -> Result<(), Failure> {
    let start = Instant::now();
    pod.run(|| {
        while !ready() {
            process.runs()?;
            if start.elapsed() > DEADLINE {
                return Err(Failure::Late("akrobateo-lb is ready".to_owned(), DEADLINE));
            }
            thread::sleep(LOOK);
        }
        Ok(())
    })
}

fn ready() -> bool {
    let ask = || {
        let mut stream = dial((Ipv4Addr::LOCALHOST, akrobateo::PROBE_PORT).into(), Duration::from_secs(1))?;
        stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: probe\r\nConnection: close\r\n\r\n")?;
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).map(|()| answer)
    };
    ask().is_ok_and(|answer: [u8; 12]| answer.ends_with(b" 200"))
}

fn first_connection(route: &Route, programs: &Programs) -> Result<Duration, Failure> {
    let together = Barrier::new(2);
    let entry = route.entry();
    let client = || {
        let entered = route.network.client.enter();
        together.wait();
        entered?;
        let start = Instant::now();
        loop {
            match once(entry, CLIENTS_TIMEOUT) {
                Ok(_) => return Ok(start.elapsed()),
                Err(error) if start.elapsed() > DEADLINE => return Err(error).tried("the first connection"),
                Err(_) => thread::sleep(LOOK),
            }
        }
    };
    thread::scope(|scope| {
        let client = scope.spawn(client);
        together.wait();
        // Kept until the client has been served.
        let proxy = proxy::start(route.variant, Protocol::Tcp, &route.network.pod, programs);
        let first = client.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        proxy.and(first)
    })
}

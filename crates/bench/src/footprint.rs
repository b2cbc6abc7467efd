//! What proxies occupy: memory, descriptors, bytes of their image. I/O only.

use std::process::Command;
use std::thread;
use std::time::Duration;

use rustix::process::{Resource, getrlimit};

use crate::client::{ask, dial};
use crate::failure::{Failure, Tried};
use crate::load::Progress;
use crate::measure::Measure;
use crate::protocol::Order;
use crate::proxy::process::Process;
use crate::proxy::{Programs, Protocol};
use crate::route::Route;
use crate::sampling::{loaded, precise};
use crate::variant::{Copier, Variant, Way};

/// Idle connections that are opened, if the limit of descriptors allows it.
const IDLE: u64 = 10_000;
/// Descriptors that are needed for other things.
const SPARE: u64 = 1_000;
/// Descriptors that `HAProxy` reckons with for two connections: it keeps room for pipes.
const FOR_TWO: u64 = 5;
/// Clients that open them.
const CLIENTS: u64 = 4;
/// Load after which memory is read.
const LOAD: Duration = Duration::from_millis(500);
/// How long a client waits for an answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a proxy occupies.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Footprint {
    /// The variant's name.
    pub(crate) variant: &'static str,
    /// Resident bytes after some load.
    pub(crate) memory: u64,
    /// What idle connections cost, where the proxy copies.
    pub(crate) idle: Option<Idle>,
}

/// What idle connections through a proxy cost.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Idle {
    /// How many there were.
    pub(crate) connections: u64,
    /// Resident bytes of each, without the kernel's.
    pub(crate) memory: f64,
    /// Descriptors of each.
    pub(crate) descriptors: f64,
}

/// Measures the variant's proxy, in a network of its own; `None` if no process is left in the pod.
pub(crate) fn measure(variant: Variant, programs: &Programs) -> Result<Option<Footprint>, Failure> {
    let route = Route::new(variant, Protocol::Tcp, programs)?;
    let Some(proxy) = &route.proxy else { return Ok(None) };
    loaded(&route, Measure::Connections, &Progress::default(), || {
        thread::sleep(LOAD);
        Ok(())
    })?;
    let memory = proxy.memory();
    let copies = matches!(variant.way, Way::Userspace(..));
    let idle = if copies { Some(idle(&route, proxy)?) } else { None };
    Ok(Some(Footprint { variant: variant.name, memory, idle }))
}

fn idle(route: &Route, proxy: &Process) -> Result<Idle, Failure> {
    let most = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let each = IDLE.min(most.saturating_sub(SPARE) * 2 / FOR_TWO) / CLIENTS;
    let entry = route.entry();
    let open = || {
        route.network.client.enter()?;
        let connection = |_| {
            let mut stream = dial(entry, PATIENCE)?;
            ask(&mut stream, Order::Hold).map(|_| stream)
        };
        (0..each).map(connection).collect::<Result<Vec<_>, _>>().tried("idle connections")
    };
    let (memory, descriptors) = (proxy.memory(), proxy.descriptors());
    let held = thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(open)).collect();
        let opened = clients.into_iter().map(|client| match client.join() {
            Ok(opened) => opened,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        opened.collect::<Result<Vec<_>, Failure>>()
    })?;
    let connections = each * CLIENTS;
    let grown = proxy.memory().saturating_sub(memory);
    let opened = proxy.descriptors().saturating_sub(descriptors) as u64;
    drop(held);
    Ok(Idle {
        connections,
        memory: precise(grown) / precise(connections),
        descriptors: precise(opened) / precise(connections),
    })
}

/// The variants whose footprint is measured.
pub(crate) fn has(variant: Variant) -> bool {
    match variant.way {
        Way::Kernel | Way::Userspace(_, true) => true,
        Way::Userspace(copier, false) => copier == Copier::HaProxy,
        Way::Direct | Way::NodeDnat | Way::Klipper(_) => false,
    }
}

/// Bytes of the data plane's binary, and packed as a registry has it. Its image has nothing else.
pub(crate) fn image(programs: &Programs) -> Result<[u64; 2], Failure> {
    let size = std::fs::metadata(&programs.lb).tried("the data plane's binary")?.len();
    let packed = Command::new("gzip").arg("-9c").arg(&programs.lb).output().tried("gzip")?;
    Ok([size, packed.stdout.len() as u64])
}

//! The footprint of proxies: memory, descriptors, and size of the binary. Does I/O.

use std::net::TcpStream;
use std::process::Command;
use std::thread;
use std::time::Duration;

use akrobateo_core::Protocol;
use netns_testkit::tcp::connect;
use rustix::process::{Resource, getrlimit};

use crate::client::request;
use crate::error::{BenchError, Context};
use crate::load::Load;
use crate::load_generator::Progress;
use crate::protocol::Operation;
use crate::proxy::process::Process;
use crate::proxy::programs::Programs;
use crate::quartiles::to_f64;
use crate::sampling::run_under_load;
use crate::testbed::Testbed;
use crate::variant::{DataPath, UserspaceProxy, Variant};

/// The maximum number of idle connections. The number is lower if the descriptor limit is too low.
const MAX_IDLE_CONNECTIONS: u64 = 10_000;
/// The number of descriptors that are not used for idle connections.
const RESERVED_DESCRIPTORS: u64 = 1_000;
/// The number of descriptors that `HAProxy` reserves for two connections: four for sockets, and one for a pipe.
const DESCRIPTORS_PER_TWO_CONNECTIONS: u64 = 5;
/// The number of clients that open idle connections.
const CLIENT_COUNT: u64 = 4;
/// The duration of the load before the memory of the proxy is read.
const LOAD_DURATION: Duration = Duration::from_millis(500);
/// The timeout of a client, for its connection and for each reply.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// The footprint of a proxy.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Footprint {
    /// The variant's name.
    pub(crate) variant: &'static str,
    /// The proxy's resident memory in bytes, after it was under load.
    pub(crate) resident_memory_bytes: u64,
    /// The memory and descriptors of idle connections. `None` if the proxy does not copy bytes.
    pub(crate) idle_connections: Option<IdleConnections>,
}

/// The memory and descriptors that idle connections through a proxy need.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct IdleConnections {
    /// The number of idle connections.
    pub(crate) connection_count: u64,
    /// The resident bytes per connection, without kernel memory.
    pub(crate) bytes_per_connection: f64,
    /// The descriptors per connection.
    pub(crate) descriptors_per_connection: f64,
}

/// The size of the data plane's binary in bytes. The container image has no other file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BinarySize {
    /// The size of the file.
    pub(crate) uncompressed_bytes: u64,
    /// The size after compression with gzip -9, as in a registry.
    pub(crate) compressed_bytes: u64,
}

/// Measures a variant's proxy in its own testbed. Returns `None` if the variant has no proxy process.
pub(crate) fn measure(variant: Variant, programs: &Programs) -> Result<Option<Footprint>, BenchError> {
    let testbed = Testbed::new(variant, Protocol::Tcp, programs)?;
    let Some(proxy) = &testbed.proxy else { return Ok(None) };
    run_under_load(&testbed.load_path(), Load::Connections, &Progress::default(), || {
        thread::sleep(LOAD_DURATION);
        Ok(())
    })?;
    let resident_memory_bytes = proxy.resident_memory_bytes();
    let is_userspace = matches!(variant.data_path, DataPath::Userspace { .. });
    let idle_connections = if is_userspace { Some(measure_idle_connections(&testbed, proxy)?) } else { None };
    Ok(Some(Footprint { variant: variant.name, resident_memory_bytes, idle_connections }))
}

fn measure_idle_connections(testbed: &Testbed, proxy: &Process) -> Result<IdleConnections, BenchError> {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let connections_within_descriptor_limit =
        limit.saturating_sub(RESERVED_DESCRIPTORS) * 2 / DESCRIPTORS_PER_TWO_CONNECTIONS;
    let connections_per_client = MAX_IDLE_CONNECTIONS.min(connections_within_descriptor_limit) / CLIENT_COUNT;
    let (memory, descriptors) = (proxy.resident_memory_bytes(), proxy.count_open_descriptors());
    let streams = thread::scope(|scope| {
        let open = || open_idle_connections(testbed, connections_per_client);
        let clients: Vec<_> = (0..CLIENT_COUNT).map(|_| scope.spawn(open)).collect();
        let streams = clients.into_iter().map(|client| match client.join() {
            Ok(streams) => streams,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        streams.collect::<Result<Vec<_>, BenchError>>()
    })?;
    let connections = connections_per_client * CLIENT_COUNT;
    let added_memory = proxy.resident_memory_bytes().saturating_sub(memory);
    let added_descriptors = proxy.count_open_descriptors().saturating_sub(descriptors) as u64;
    drop(streams);
    Ok(IdleConnections {
        connection_count: connections,
        bytes_per_connection: to_f64(added_memory) / to_f64(connections),
        descriptors_per_connection: to_f64(added_descriptors) / to_f64(connections),
    })
}

/// Opens connections from the client's namespace, which the calling thread enters.
fn open_idle_connections(testbed: &Testbed, count: u64) -> Result<Vec<TcpStream>, BenchError> {
    testbed.network.client.enter();
    let frontend = testbed.variant.frontend();
    let open = |_| {
        let mut stream = connect(None, frontend, REQUEST_TIMEOUT)?;
        request(&mut stream, Operation::KeepOpen).map(|_| stream)
    };
    (0..count).map(open).collect::<Result<_, _>>().context("idle connections")
}

/// Returns true if the footprint of this variant is measured.
pub(crate) fn is_footprint_measured(variant: Variant) -> bool {
    match variant.data_path {
        DataPath::Kernel | DataPath::Userspace { proxy_header: true, .. } => true,
        DataPath::Userspace { proxy, proxy_header: false } => proxy == UserspaceProxy::HaProxy,
        DataPath::Direct | DataPath::NodeDnat | DataPath::Klipper(_) | DataPath::Agent(_) => false,
    }
}

/// Measures the data plane's binary.
pub(crate) fn measure_binary(programs: &Programs) -> Result<BinarySize, BenchError> {
    let uncompressed_bytes = std::fs::metadata(&programs.lb).context("the data plane's binary")?.len();
    let gzip_output = Command::new("gzip").arg("-9c").arg(&programs.lb).output().context("gzip")?;
    Ok(BinarySize { uncompressed_bytes, compressed_bytes: gzip_output.stdout.len() as u64 })
}

//! The backend. Each request asks the backend to reply, to receive data, to send data, or to keep the connection open.
//! Does I/O.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use netns_testkit::Namespace;

use crate::cpu_pin::CpuPin;
use crate::error::{BenchError, Context};
use crate::network::addr;
use crate::protocol::{
    HeaderParseResult, Operation, REPLY_LENGTH, REQUEST_LENGTH, encode_reply, parse_proxy_header,
};

/// The number of connections that the backend serves at the same time. The number is higher than the number of clients
/// of each load.
const CONNECTION_THREAD_COUNT: usize = 16;
/// The number of threads that echo datagrams, if the backend has one address. With several addresses, each address has
/// one thread.
const UDP_THREAD_COUNT: usize = 2;
/// The length of one read or write of an upload or a download, in bytes.
pub(crate) const BULK_CHUNK_LENGTH: usize = 128 * 1024;
/// The time after which the backend closes an idle connection.
const IDLE_TIMEOUT: Duration = Duration::from_secs(5);
/// The stack size of each thread in bytes. The stack is small, because the threads do not recurse.
const STACK_SIZE: usize = 128 * 1024;

/// A running backend. The backend stops when the `Backend` is dropped.
#[derive(Debug)]
pub(crate) struct Backend {
    state: Arc<State>,
    listener: Arc<TcpListener>,
}

/// The properties of a backend.
#[derive(Clone, Debug)]
pub(crate) struct BackendOptions {
    /// True if each connection begins with a PROXY header.
    pub(crate) expects_proxy_header: bool,
    /// The addresses to which clients send datagrams. Connections are accepted on all addresses.
    pub(crate) addresses: Vec<Ipv4Addr>,
    /// The number of the processor for all threads; `None` for all processors.
    pub(crate) processor: Option<usize>,
}

#[derive(Debug)]
struct State {
    options: BackendOptions,
    received_bytes: AtomicU64,
    open_connections: Mutex<Vec<TcpStream>>,
    is_stopped: AtomicBool,
}

impl Backend {
    /// Starts a backend.
    pub(crate) fn start(namespace: &Namespace, options: BackendOptions) -> Result<Self, BenchError> {
        let (listener, udp_sockets) = namespace.run(|| bind(&options.addresses))?;
        let listener = Arc::new(listener);
        let state = Arc::new(State {
            options,
            received_bytes: 0.into(),
            open_connections: Mutex::default(),
            is_stopped: false.into(),
        });
        for _ in 0..CONNECTION_THREAD_COUNT {
            let (state, listener) = (Arc::clone(&state), Arc::clone(&listener));
            spawn(move || accept_connections(&listener, &state))?;
        }
        let threads_per_socket = UDP_THREAD_COUNT.div_ceil(udp_sockets.len());
        for socket in udp_sockets.into_iter().map(Arc::new) {
            for _ in 0..threads_per_socket {
                let (state, socket) = (Arc::clone(&state), Arc::clone(&socket));
                spawn(move || echo_datagrams(&socket, &state))?;
            }
        }
        Ok(Self { state, listener })
    }

    /// Returns the number of bytes that the backend has received from uploads.
    pub(crate) fn received_bytes(&self) -> u64 {
        self.state.received_bytes.load(Relaxed)
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.state.is_stopped.store(true, Relaxed);
        // Closes the open connections now. The UDP threads use `state` for a longer time, and would keep the
        // connections open.
        self.state.open_connections.lock().unwrap_or_else(PoisonError::into_inner).clear();
        // Wakes the threads that accept connections. If this fails, the threads end with the program.
        let _ = rustix::net::shutdown(&self.listener, rustix::net::Shutdown::Both);
    }
}

/// Binds the ports in the network namespace of the calling thread.
///
/// Each address has its own UDP socket, because a socket for all addresses sends its replies from the first address.
fn bind(addresses: &[Ipv4Addr]) -> Result<(TcpListener, Vec<UdpSocket>), BenchError> {
    let any_address = (Ipv4Addr::UNSPECIFIED, addr::BACKEND_PORT);
    let listener = TcpListener::bind(any_address).context("the backend's TCP port")?;
    let bind_udp = |address: &Ipv4Addr| {
        let socket = UdpSocket::bind((*address, addr::BACKEND_PORT))?;
        // The UDP threads check between reads whether the backend has stopped.
        socket.set_read_timeout(Some(IDLE_TIMEOUT)).map(|()| socket)
    };
    let sockets = addresses.iter().map(bind_udp).collect::<Result<_, _>>();
    Ok((listener, sockets.context("the backend's UDP ports")?))
}

/// Pins the calling thread, if the backend has a processor. The call fails only if the processor does not exist, so its
/// result is ignored.
fn pin(state: &State) -> Option<CpuPin> {
    state.options.processor.and_then(|processor| CpuPin::from_thread_number(processor).ok())
}

fn spawn(run: impl FnOnce() + Send + 'static) -> Result<(), BenchError> {
    thread::Builder::new().stack_size(STACK_SIZE).spawn(run).context("a thread")?;
    Ok(())
}

fn accept_connections(listener: &TcpListener, state: &State) {
    let _cpu_pin = pin(state);
    while !state.is_stopped.load(Relaxed) {
        match listener.accept() {
            // Errors are ignored here, because the client counts its failed connections.
            Ok((stream, peer)) => drop(serve(stream, peer.ip(), state)),
            // The listener was shut down.
            Err(error) if error.kind() == ErrorKind::InvalidInput => return,
            Err(_) => thread::sleep(Duration::from_millis(1)),
        }
    }
}

/// Serves the requests of one connection until it ends.
fn serve(mut stream: TcpStream, peer: IpAddr, state: &State) -> std::io::Result<()> {
    stream.set_read_timeout(Some(IDLE_TIMEOUT))?;
    stream.set_write_timeout(Some(IDLE_TIMEOUT))?;
    stream.set_nodelay(true)?;
    let mut buffer = [0; 512];
    let mut buffered_bytes = 0;
    let mut cpu_pin = None;
    let mut client = peer;
    if state.options.expects_proxy_header {
        (client, buffered_bytes) = read_proxy_header(&mut stream, &mut buffer)?;
    }
    loop {
        while buffered_bytes < REQUEST_LENGTH {
            buffered_bytes += read_at_least_one_byte(&mut stream, &mut buffer[buffered_bytes..])?;
        }
        match Operation::parse(&buffer) {
            Some(Operation::Reply) => {
                if cpu_pin.is_none() {
                    cpu_pin = Some(CpuPin::from_incoming_cpu(&stream)?);
                }
                stream.write_all(&encode_reply(client))?;
            }
            Some(Operation::ReplyAndClose) => return stream.write_all(&encode_reply(client)),
            Some(Operation::Upload) => return receive_bulk(&mut stream, &state.received_bytes),
            Some(Operation::Download) => return send_bulk(&mut stream),
            Some(Operation::KeepOpen) => {
                stream.write_all(&encode_reply(client))?;
                state.open_connections.lock().unwrap_or_else(PoisonError::into_inner).push(stream);
                return Ok(());
            }
            None => return Err(ErrorKind::InvalidData.into()),
        }
        buffer.copy_within(REQUEST_LENGTH..buffered_bytes, 0);
        buffered_bytes -= REQUEST_LENGTH;
    }
}

/// Reads a PROXY header. Moves the bytes after the header to the start of `buffer`.
///
/// Returns the client address in the header, and the number of the moved bytes.
fn read_proxy_header(stream: &mut TcpStream, buffer: &mut [u8]) -> std::io::Result<(IpAddr, usize)> {
    let mut buffered_bytes = 0;
    loop {
        buffered_bytes += read_at_least_one_byte(stream, &mut buffer[buffered_bytes..])?;
        match parse_proxy_header(&buffer[..buffered_bytes]) {
            HeaderParseResult::Incomplete => {}
            HeaderParseResult::Invalid => return Err(ErrorKind::InvalidData.into()),
            HeaderParseResult::Complete { client, length } => {
                buffer.copy_within(length..buffered_bytes, 0);
                return Ok((client, buffered_bytes - length));
            }
        }
    }
}

/// Reads at least one byte. Returns an error at the end of the stream.
fn read_at_least_one_byte(stream: &mut TcpStream, buffer: &mut [u8]) -> std::io::Result<usize> {
    match stream.read(buffer)? {
        0 => Err(ErrorKind::UnexpectedEof.into()),
        length => Ok(length),
    }
}

fn receive_bulk(stream: &mut TcpStream, received_bytes: &AtomicU64) -> std::io::Result<()> {
    let mut buffer = vec![0; BULK_CHUNK_LENGTH];
    loop {
        received_bytes.fetch_add(read_at_least_one_byte(stream, &mut buffer)? as u64, Relaxed);
    }
}

fn send_bulk(stream: &mut TcpStream) -> std::io::Result<()> {
    let buffer = vec![0; BULK_CHUNK_LENGTH];
    loop {
        stream.write_all(&buffer)?;
    }
}

fn echo_datagrams(socket: &UdpSocket, state: &State) {
    let _cpu_pin = pin(state);
    let mut buffer = [0; REPLY_LENGTH];
    while !state.is_stopped.load(Relaxed) {
        if let Ok((length, peer)) = socket.recv_from(&mut buffer) {
            // A send error is ignored, because the client counts lost datagrams.
            let _ = socket.send_to(&buffer[..length], peer);
        }
    }
}

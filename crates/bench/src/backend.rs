//! The backend: answers, takes, sends or holds, as the client asks. I/O only.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crate::failure::{Failure, Tried};
use crate::namespace::Namespace;
use crate::network::at;
use crate::pin::Pinned;
use crate::protocol::{ANSWER, Header, Order, REQUEST, answer, header};

/// Connections served at a time; more than any load has.
const AT_A_TIME: usize = 16;
/// Threads that echo datagrams.
const ECHOES: usize = 2;
/// Bytes per call in bulk.
pub(crate) const BULK: usize = 128 * 1024;
/// A connection on which nothing moves for so long is given up.
const IDLE: Duration = Duration::from_secs(5);
/// Enough for threads that recurse into nothing.
pub(crate) const STACK: usize = 128 * 1024;

/// A running backend; its listeners end with it.
#[derive(Debug)]
pub(crate) struct Backend {
    state: Arc<State>,
    listener: Arc<TcpListener>,
}

#[derive(Debug)]
struct State {
    /// Whether connections begin with a PROXY header.
    header: bool,
    received: AtomicU64,
    held: Mutex<Vec<TcpStream>>,
    ended: AtomicBool,
}

impl Backend {
    /// Starts one; `header` says whether every connection begins with a PROXY header.
    pub(crate) fn start(namespace: &Namespace, header: bool) -> Result<Self, Failure> {
        let address = (at::BACKEND, at::BACKEND_PORT);
        let (listener, datagrams) = namespace.run(|| {
            let listener = TcpListener::bind(address).tried("the backend's port")?;
            Ok((listener, UdpSocket::bind(address).tried("the backend's port")?))
        })?;
        // So that the echo's threads see the end.
        datagrams.set_read_timeout(Some(IDLE)).tried("the backend's socket")?;
        let (listener, datagrams) = (Arc::new(listener), Arc::new(datagrams));
        let state = State { header, received: 0.into(), held: Mutex::default(), ended: false.into() };
        let state = Arc::new(state);
        for _ in 0..AT_A_TIME {
            let (state, listener) = (Arc::clone(&state), Arc::clone(&listener));
            spawn(move || accept(&listener, &state))?;
        }
        for _ in 0..ECHOES {
            let (state, socket) = (Arc::clone(&state), Arc::clone(&datagrams));
            spawn(move || echo(&socket, &state))?;
        }
        Ok(Self { state, listener })
    }

    /// Bytes taken in bulk so far.
    pub(crate) fn received(&self) -> u64 {
        self.state.received.load(Relaxed)
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.state.ended.store(true, Relaxed);
        // The echo's threads keep the state for as long as they wait.
        self.state.held.lock().unwrap_or_else(PoisonError::into_inner).clear();
        // Wakes those who wait for connections; if it fails they stay, and end with the program.
        let _ = rustix::net::shutdown(&self.listener, rustix::net::Shutdown::Both);
    }
}

fn spawn(work: impl FnOnce() + Send + 'static) -> Result<(), Failure> {
    thread::Builder::new().stack_size(STACK).spawn(work).tried("a thread")?;
    Ok(())
}

fn accept(listener: &TcpListener, state: &State) {
    while !state.ended.load(Relaxed) {
        match listener.accept() {
            // What goes wrong with a connection is what its client counts.
            Ok((stream, peer)) => drop(serve(stream, peer.ip(), state)),
            Err(error) if error.kind() == ErrorKind::InvalidInput => return,
            Err(_) => thread::sleep(Duration::from_millis(1)),
        }
    }
}

fn serve(mut stream: TcpStream, peer: IpAddr, state: &State) -> std::io::Result<()> {
    stream.set_read_timeout(Some(IDLE))?;
    stream.set_write_timeout(Some(IDLE))?;
    stream.set_nodelay(true)?;
    let mut buffer = [0; 512];
    let mut filled = 0;
    let mut pinned = None;
    let mut client = peer;
    if state.header {
        let length = loop {
            filled += more(&mut stream, &mut buffer[filled..])?;
            match header(&buffer[..filled]) {
                Header::Incomplete => {}
                Header::Invalid => return Err(ErrorKind::InvalidData.into()),
                Header::From(source, length) => {
                    client = source;
                    break length;
                }
            }
        };
        buffer.copy_within(length..filled, 0);
        filled -= length;
    }
    loop {
        while filled < REQUEST {
            filled += more(&mut stream, &mut buffer[filled..])?;
        }
        match Order::of(&buffer) {
            Some(Order::Answer) => {
                if pinned.is_none() {
                    pinned = Some(Pinned::where_it_arrives(&stream)?);
                }
                stream.write_all(&answer(client))?;
            }
            Some(Order::Last) => return stream.write_all(&answer(client)),
            Some(Order::Up) => return take(&mut stream, &state.received),
            Some(Order::Down) => return send(&mut stream),
            Some(Order::Hold) => {
                stream.write_all(&answer(client))?;
                state.held.lock().unwrap_or_else(PoisonError::into_inner).push(stream);
                return Ok(());
            }
            None => return Err(ErrorKind::InvalidData.into()),
        }
        buffer.copy_within(REQUEST..filled, 0);
        filled -= REQUEST;
    }
}

fn more(stream: &mut TcpStream, buffer: &mut [u8]) -> std::io::Result<usize> {
    match stream.read(buffer)? {
        0 => Err(ErrorKind::UnexpectedEof.into()),
        length => Ok(length),
    }
}

fn take(stream: &mut TcpStream, received: &AtomicU64) -> std::io::Result<()> {
    let mut buffer = vec![0; BULK];
    loop {
        received.fetch_add(more(stream, &mut buffer)? as u64, Relaxed);
    }
}

fn send(stream: &mut TcpStream) -> std::io::Result<()> {
    let buffer = vec![0; BULK];
    loop {
        stream.write_all(&buffer)?;
    }
}

fn echo(socket: &UdpSocket, state: &State) {
    let mut buffer = [0; ANSWER];
    while !state.ended.load(Relaxed) {
        if let Ok((length, from)) = socket.recv_from(&mut buffer) {
            // What is lost is what its client counts.
            let _ = socket.send_to(&buffer[..length], from);
        }
    }
}

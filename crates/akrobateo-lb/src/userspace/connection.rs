//! One connection: the target is dialled, told who the client is, and bytes go both ways until both have ended. I/O only.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use akrobateo_core::ProxyVersion;
use rustix::io::Errno;
use rustix::net::{Shutdown, SocketType, connect, getsockname, shutdown, socket_with, sockopt};

use super::header::header;
use super::listen::{FLAGS, family, keep_alive};
use super::poller::Readiness;
use super::stats::{PortStats, add};
use super::transfer::{Broken, Direction, IoContext, Progress, Side};

/// What a connection is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// The target has not answered yet.
    Connecting,
    /// Bytes go both ways.
    Open,
}

/// What becomes of a connection after something happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// It waits for its sockets.
    Waits,
    /// It could go on, and lets others go first.
    Again,
    /// It is over.
    Over,
}

/// A client's connection, and that to the target.
#[derive(Debug)]
pub(super) struct Connection {
    /// The port's place in the list of ports.
    pub(super) port: usize,
    pub(super) stage: Stage,
    /// Whether it is in the queue of those that could go on.
    pub(super) queued: bool,
    settled: bool,
    /// Milliseconds since the worker began, when something last happened.
    pub(super) since: u64,
    client_address: SocketAddr,
    client: Side,
    target: Side,
    up: Half,
    down: Half,
    /// Something was lost: the peers must not take what they got for all of it.
    broken: bool,
}

#[derive(Debug, Default)]
struct Half {
    direction: Direction,
    over: bool,
}

/// Begins to connect to the target.
pub(super) fn dial(target: SocketAddr) -> Result<OwnedFd, Errno> {
    let socket = socket_with(family(target), SocketType::STREAM, FLAGS, None)?;
    sockopt::set_tcp_nodelay(&socket, true)?;
    match connect(&socket, &target) {
        Ok(()) | Err(Errno::INPROGRESS | Errno::INTR) => Ok(socket),
        Err(error) => Err(error),
    }
}

impl Connection {
    pub(super) fn new(port: usize, now: u64, client: (OwnedFd, SocketAddr), target: OwnedFd) -> Self {
        Self {
            port,
            stage: Stage::Connecting,
            queued: false,
            settled: false,
            since: now,
            client_address: client.1,
            client: Side::new(client.0),
            target: Side::new(target),
            up: Half::default(),
            down: Half::default(),
            broken: false,
        }
    }

    pub(super) const fn client_socket(&self) -> &OwnedFd {
        &self.client.socket
    }

    pub(super) const fn target_socket(&self) -> &OwnedFd {
        &self.target.socket
    }

    /// Takes note of what happened on the client's side.
    pub(super) const fn on_client_ready(&mut self, happened: Readiness) {
        self.client.note(happened);
    }

    /// Takes note of what happened on the target's side; tells whether that answers the dial.
    pub(super) fn target_happened(&mut self, happened: Readiness) -> Result<bool, Errno> {
        self.target.note(happened);
        if self.stage == Stage::Open || !(happened.writable()) {
            return Ok(false);
        }
        if happened.failed() {
            // What failed may be a connection that had been made before.
            sockopt::socket_error(&self.target.socket)??;
        }
        Ok(true)
    }

    /// The target has answered: tells it who the client is, with the first bytes if there are some already.
    pub(super) fn open(&mut self, proxy_protocol_for: Option<ProxyVersion>, tools: &mut IoContext) -> Step {
        self.stage = Stage::Open;
        if let Some(version) = proxy_protocol_for {
            // A connection whose address is not known any more has failed, as will be seen at once.
            let Ok(destination) = destination(&self.client.socket) else { return self.fail() };
            let head = header(version, self.client_address, destination);
            let begun = self.up.direction.begin(&head, &mut self.client, &mut self.target, tools);
            if let Err(broken) = begun {
                return self.on_upload_error(broken, tools);
            }
        }
        Step::Waits
    }

    /// Moves bytes both ways, as far as it goes.
    pub(super) fn pump(&mut self, tools: &mut IoContext) -> Step {
        let mut again = false;
        if !self.up.over {
            match self.up.direction.pump(&mut self.client, &mut self.target, tools) {
                Ok(Progress::Waits) => {}
                Ok(Progress::Again) => again = true,
                Ok(Progress::Ended) => self.up.end(self.down.over, &self.target),
                Err(broken) => {
                    if self.on_upload_error(broken, tools) == Step::Over {
                        return Step::Over;
                    }
                }
            }
        }
        if !self.down.over {
            match self.down.direction.pump(&mut self.target, &mut self.client, tools) {
                Ok(Progress::Waits) => {}
                Ok(Progress::Again) => again = true,
                Ok(Progress::Ended) => self.down.end(self.up.over, &self.client),
                // Without the client, nobody is left who could want anything.
                Err(_) => return self.fail(),
            }
        }
        match (self.up.over && self.down.over, again) {
            (true, _) => Step::Over,
            (false, true) => Step::Again,
            (false, false) => Step::Waits,
        }
    }

    /// A target that takes no more may have said why: the client still gets that.
    fn on_upload_error(&mut self, broken: Broken, tools: &mut IoContext) -> Step {
        self.broken = true;
        self.up.over = true;
        self.up.direction.release(tools);
        if broken == Broken::Source || self.down.over { Step::Over } else { Step::Waits }
    }

    const fn fail(&mut self) -> Step {
        self.broken = true;
        Step::Over
    }

    /// Counts the bytes that have been moved.
    pub(super) fn count(&mut self, stats: &PortStats) {
        for (half, counter) in [(&mut self.up, &stats.up), (&mut self.down, &stats.down)] {
            let moved = std::mem::take(&mut half.direction.moved);
            if moved > 0 {
                add(counter, moved);
            }
        }
    }

    /// Finds out from now on when the target is gone; not worth it for a connection that is over soon.
    pub(super) fn settle(&mut self) {
        if !std::mem::replace(&mut self.settled, true) {
            // A connection that does not take it has failed, as will be seen at once.
            let _ = keep_alive(&self.target.socket);
        }
    }

    /// Closes both sides.
    pub(super) fn close(mut self, tools: &mut IoContext) {
        self.up.direction.release(tools);
        self.down.direction.release(tools);
        if self.broken || self.stage == Stage::Connecting {
            reset(&self.client.socket);
            reset(&self.target.socket);
        }
    }

    /// Has both peers learn that the connection ended before its time.
    pub(super) const fn cut(&mut self) {
        self.broken = true;
    }
}

impl Half {
    /// Passes on that no more bytes come, unless closing is about to.
    fn end(&mut self, other_over: bool, to: &Side) {
        self.over = true;
        if !other_over {
            // Fails only where the peer is gone, of which the other direction learns.
            let _ = shutdown(&to.socket, Shutdown::Write);
        }
    }
}

/// Has the peer see a reset when the socket is closed.
pub(super) fn reset(socket: &OwnedFd) {
    // Where it fails, the peer sees an ordinary end.
    let _ = sockopt::set_socket_linger(socket, Some(Duration::ZERO));
}

/// Where the client connected to: before rules of this network namespace redirected it, if there are any, and else
/// this end's address. What the node did, such as a hostPort's DNAT, cannot be seen from inside of a pod.
fn destination(client: &OwnedFd) -> Result<SocketAddr, Errno> {
    let local: SocketAddr = getsockname(client)?.try_into()?;
    let original = match local {
        SocketAddr::V4(_) => sockopt::ip_original_dst(client).map(SocketAddr::V4),
        SocketAddr::V6(_) => sockopt::ipv6_original_dst(client).map(SocketAddr::V6),
    };
    Ok(original.unwrap_or(local))
}

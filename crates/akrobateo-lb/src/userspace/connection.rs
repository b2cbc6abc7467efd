//! One TCP connection: connects to the target, sends the PROXY protocol header, and moves bytes in both directions until
//! both have ended. I/O only.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use akrobateo_core::ProxyVersion;
use rustix::io::Errno;
use rustix::net::{getsockname, sockopt};

use super::drain::Phase;
use super::header::header;
use super::inbox::Client;
use super::io_context::IoContext;
use super::peer::Peer;
use super::poller::Readiness;
use super::sockets::{enable_keepalive, reset_on_close};
use super::stats::{PortStats, add};
use super::transfer::{Progress, Transfer, TransferError};

/// The stage of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// The target has not answered yet.
    Connecting,
    /// Bytes move in both directions.
    Open,
}

/// A client's connection and the connection to its target.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) port_index: usize,
    /// The proxy's phase when the connection began.
    opened_in: Phase,
    /// The connection is in the worker's run queue.
    pub(super) queued: bool,
    /// When the connection began, or when a socket was last ready: milliseconds since the worker's start.
    pub(super) last_activity: u64,
    stage: Stage,
    target_keepalive: bool,
    client_address: SocketAddr,
    client: Peer,
    target: Peer,
    upload: Transfer,
    download: Transfer,
    /// Bytes were lost. Both peers must see a reset, so that neither takes its bytes for the whole stream.
    aborted: bool,
}

impl Connection {
    pub(super) fn new(client: Client, target: OwnedFd, opened_in: Phase, now: u64) -> Self {
        Self {
            port_index: client.port_index,
            opened_in,
            queued: false,
            last_activity: now,
            stage: Stage::Connecting,
            target_keepalive: false,
            client_address: client.address,
            client: Peer::new(client.socket),
            target: Peer::new(target),
            upload: Transfer::new(),
            download: Transfer::new(),
            aborted: false,
        }
    }

    /// Returns whether the connection began before the proxy began to drain.
    pub(super) fn predates_drain(&self) -> bool {
        self.opened_in == Phase::Forwarding
    }

    pub(super) const fn stage(&self) -> Stage {
        self.stage
    }

    pub(super) const fn client_socket(&self) -> &OwnedFd {
        self.client.socket()
    }

    pub(super) const fn target_socket(&self) -> &OwnedFd {
        self.target.socket()
    }

    pub(super) const fn on_client_ready(&mut self, readiness: Readiness) {
        self.client.record_readiness(readiness);
    }

    pub(super) const fn on_target_ready(&mut self, readiness: Readiness) {
        self.target.record_readiness(readiness);
    }

    /// Returns whether the target has accepted the connection; returns an error if it has not and will not.
    pub(super) fn check_connected(&self, readiness: Readiness) -> Result<bool, Errno> {
        if !readiness.is_writable() {
            return Ok(false);
        }
        if readiness.is_failed() {
            // Without an error here, the target accepted the connection and has closed it already.
            sockopt::socket_error(self.target.socket())??;
        }
        Ok(true)
    }

    /// Opens the connection after the target has accepted it. Sends the PROXY protocol header, together with the first
    /// bytes of the client if some have arrived.
    pub(super) fn open(&mut self, proxy_protocol: Option<ProxyVersion>, io: &mut IoContext) -> Progress {
        self.stage = Stage::Open;
        let Some(version) = proxy_protocol else { return Progress::Blocked };
        // A socket without an address has failed.
        let Ok(destination) = original_destination(self.client.socket()) else { return self.abort() };
        let header = header(version, self.client_address, destination);
        match self.upload.send_header(&header, &mut self.client, &mut self.target, io) {
            Ok(()) => Progress::Blocked,
            Err(error) => self.on_upload_error(error, io),
        }
    }

    /// Moves bytes in both directions, as many as the sockets allow.
    pub(super) fn pump(&mut self, io: &mut IoContext) -> Progress {
        let mut yielded = false;
        if !self.upload.is_finished() {
            match self.upload.pump(&mut self.client, &mut self.target, io) {
                Ok(Progress::Blocked) => {}
                Ok(Progress::Yielded) => yielded = true,
                // If both directions are finished, the sockets are closed next.
                Ok(Progress::Finished) if self.download.is_finished() => {}
                Ok(Progress::Finished) => self.target.shutdown_write(),
                Err(error) => {
                    if self.on_upload_error(error, io) == Progress::Finished {
                        return Progress::Finished;
                    }
                }
            }
        }
        if !self.download.is_finished() {
            match self.download.pump(&mut self.target, &mut self.client, io) {
                Ok(Progress::Blocked) => {}
                Ok(Progress::Yielded) => yielded = true,
                Ok(Progress::Finished) if self.upload.is_finished() => {}
                Ok(Progress::Finished) => self.client.shutdown_write(),
                // Without the client, or without its answer, the rest of the upload is useless.
                Err(_) => return self.abort(),
            }
        }
        match (self.upload.is_finished() && self.download.is_finished(), yielded) {
            (true, _) => Progress::Finished,
            (false, true) => Progress::Yielded,
            (false, false) => Progress::Blocked,
        }
    }

    /// Decides whether the connection continues. A target that reads no more may have sent the reason, and the client
    /// still gets it.
    fn on_upload_error(&mut self, error: TransferError, io: &mut IoContext) -> Progress {
        self.aborted = true;
        self.upload.abandon(io);
        if error == TransferError::Source || self.download.is_finished() {
            Progress::Finished
        } else {
            Progress::Blocked
        }
    }

    const fn abort(&mut self) -> Progress {
        self.mark_aborted();
        Progress::Finished
    }

    /// Makes both peers see a reset when the connection is closed.
    pub(super) const fn mark_aborted(&mut self) {
        self.aborted = true;
    }

    /// Adds the bytes that were moved to the port's counters.
    pub(super) fn count_bytes(&mut self, stats: &PortStats) {
        for (transfer, counter) in
            [(&mut self.upload, &stats.bytes_in), (&mut self.download, &stats.bytes_out)]
        {
            let moved = transfer.take_moved();
            if moved > 0 {
                add(counter, moved);
            }
        }
    }

    /// Enables keep-alive probes to the target. The client's socket has them from its listener.
    pub(super) fn enable_target_keepalive(&mut self) {
        if !self.target_keepalive {
            self.target_keepalive = true;
            // Fails only if the connection has failed.
            let _ = enable_keepalive(self.target.socket());
        }
    }

    /// Closes both sockets.
    pub(super) fn close(mut self, io: &mut IoContext) {
        self.upload.abandon(io);
        self.download.abandon(io);
        if self.aborted || self.stage == Stage::Connecting {
            reset_on_close(self.client.socket());
            reset_on_close(self.target.socket());
        }
    }
}

/// Returns the address that the client connected to. This is the destination before rules of this network namespace
/// redirected the connection, or else the local address. A DNAT rule of the node, for example a hostPort's, is not
/// visible in a pod.
fn original_destination(client: &OwnedFd) -> Result<SocketAddr, Errno> {
    let local: SocketAddr = getsockname(client)?.try_into()?;
    let original = match local {
        SocketAddr::V4(_) => sockopt::ip_original_dst(client).map(SocketAddr::V4),
        SocketAddr::V6(_) => sockopt::ipv6_original_dst(client).map(SocketAddr::V6),
    };
    Ok(original.unwrap_or(local))
}

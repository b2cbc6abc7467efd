//! One TCP connection: connects to the target, sends the PROXY protocol header, and moves bytes in both directions
//! until both directions have ended. I/O only.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use akrobateo_core::ProxyVersion;
use rustix::io::Errno;
use rustix::net::{getsockname, sockopt};

use super::drain::Phase;
use super::header::encode_header;
use super::inbox::Client;
use super::io_context::IoContext;
use super::peer::Peer;
use super::poller::Readiness;
use super::sockets::{enable_keepalive, reset_on_close};
use super::stats::{PortStats, add};
use super::transfer::{Progress, Transfer, TransferError};

/// The time from the last bytes of a failed target to the reset of the client and the target, in milliseconds. During
/// this time the kernel sends these bytes to the client.
const RESET_DELAY_MS: u64 = 1_000;

/// The stage of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// The target has not answered yet.
    Connecting,
    /// Bytes move in both directions.
    Open,
    /// The target has failed. The kernel still sends the target's last bytes to the client. The client and the target
    /// are reset later, at `reset_at_ms`, because a reset discards bytes that are not sent yet.
    Resetting {
        /// Milliseconds since the worker's start.
        reset_at_ms: u64,
    },
}

/// The connection of a client, and the connection to the target.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) port_index: usize,
    /// The worker's phase at the start of the connection.
    phase_at_start: Phase,
    /// True if the connection is in the worker's run queue.
    pub(super) is_in_run_queue: bool,
    /// Time at which a socket was last ready, or at which the connection began: milliseconds since the worker's start.
    pub(super) last_activity_ms: u64,
    /// Time of the last bytes from the target: milliseconds since the worker's start. `None` if the target has sent
    /// nothing, or if the client is gone.
    last_download_at_ms: Option<u64>,
    stage: Stage,
    /// True if the kernel sends keep-alive probes to the target.
    has_target_keepalive: bool,
    client_address: SocketAddr,
    client: Peer,
    target: Peer,
    upload: Transfer,
    download: Transfer,
    /// True if bytes were lost. If bytes were lost, the client and the target must both receive a reset. Without a
    /// reset, the client or the target could believe that it received the whole stream.
    is_aborted: bool,
}

impl Connection {
    pub(super) fn new(client: Client, target: OwnedFd, phase_at_start: Phase, now_ms: u64) -> Self {
        Self {
            port_index: client.port_index,
            phase_at_start,
            is_in_run_queue: false,
            last_activity_ms: now_ms,
            last_download_at_ms: None,
            stage: Stage::Connecting,
            has_target_keepalive: false,
            client_address: client.address,
            client: Peer::new(client.socket),
            target: Peer::new(target),
            upload: Transfer::new(),
            download: Transfer::new(),
            is_aborted: false,
        }
    }

    /// Returns true if the connection started before the proxy started to drain.
    pub(super) fn started_before_drain(&self) -> bool {
        self.phase_at_start == Phase::Forwarding
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

    /// Returns true if the target has accepted the connection, and an error if the connection attempt has failed.
    pub(super) fn check_connected(&self, readiness: Readiness) -> Result<bool, Errno> {
        if !readiness.is_writable() {
            return Ok(false);
        }
        if readiness.has_failed_or_ended() {
            // If the socket has no error, the target accepted the connection and has closed it already.
            sockopt::socket_error(self.target.socket())??;
        }
        Ok(true)
    }

    /// Enters the stage [`Stage::Open`] after the target has accepted the connection. Sends the PROXY protocol header,
    /// together with the first bytes of the client if some have arrived.
    pub(super) fn start_forwarding(
        &mut self,
        proxy_protocol: Option<ProxyVersion>,
        io: &mut IoContext,
    ) -> Progress {
        self.stage = Stage::Open;
        let Some(version) = proxy_protocol else { return Progress::Blocked };
        // The call fails only if the connection has failed, because only then the socket has no address.
        let Ok(destination) = original_destination(self.client.socket()) else { return self.abort() };
        let header = encode_header(version, self.client_address, destination);
        match self.upload.send_header(&header, &mut self.client, &mut self.target, io) {
            Ok(()) => Progress::Blocked,
            Err(error) => self.on_upload_error(error, io),
        }
    }

    /// Moves as many bytes as the sockets allow, in both directions. If the target is lost, delays the end of the
    /// connection until the client has probably received the target's last bytes.
    pub(super) fn move_bytes(&mut self, io: &mut IoContext) -> Progress {
        if self.stage != Stage::Open {
            return Progress::Blocked;
        }
        let progress = self.move_bytes_of_both_directions(io);
        let reset_at_ms =
            self.last_download_at_ms.map(|time| time + RESET_DELAY_MS).filter(|time| *time > io.now_ms);
        match reset_at_ms {
            Some(reset_at_ms) if progress == Progress::Finished && self.is_aborted => {
                self.upload.abandon(io);
                self.download.abandon(io);
                self.stage = Stage::Resetting { reset_at_ms };
                Progress::Blocked
            }
            _ => progress,
        }
    }

    fn move_bytes_of_both_directions(&mut self, io: &mut IoContext) -> Progress {
        let mut is_budget_spent = false;
        if !self.upload.is_finished() {
            match self.upload.move_bytes(&mut self.client, &mut self.target, io) {
                Ok(Progress::Blocked) => {}
                Ok(Progress::BudgetSpent) => is_budget_spent = true,
                // The caller closes the sockets now, because both directions are finished.
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
            let (had_pending_bytes, moved_bytes_before) =
                (self.download.has_pending_bytes(), self.download.moved_bytes());
            let result = self.download.move_bytes(&mut self.target, &mut self.client, io);
            if had_pending_bytes || self.download.moved_bytes() > moved_bytes_before {
                self.last_download_at_ms = Some(io.now_ms);
            }
            match result {
                Ok(Progress::Blocked) => {}
                Ok(Progress::BudgetSpent) => is_budget_spent = true,
                Ok(Progress::Finished) if self.upload.is_finished() => {}
                Ok(Progress::Finished) => self.client.shutdown_write(),
                Err(error) => return self.on_download_error(error),
            }
        }
        match (self.upload.is_finished() && self.download.is_finished(), is_budget_spent) {
            (true, _) => Progress::Finished,
            (false, true) => Progress::BudgetSpent,
            (false, false) => Progress::Blocked,
        }
    }

    /// Decides whether the connection continues after an error of the upload. A target that stops reading may already
    /// have sent an error response, and the client must receive this response.
    fn on_upload_error(&mut self, error: TransferError, io: &mut IoContext) -> Progress {
        self.is_aborted = true;
        self.upload.abandon(io);
        if error == TransferError::SourceFailed {
            self.last_download_at_ms = None;
        }
        if error == TransferError::SourceFailed || self.download.is_finished() {
            Progress::Finished
        } else {
            Progress::Blocked
        }
    }

    /// Ends the connection. The client is gone or cannot receive the rest of the download, so the upload is useless.
    fn on_download_error(&mut self, error: TransferError) -> Progress {
        if error == TransferError::SinkFailed {
            self.last_download_at_ms = None;
        }
        self.abort()
    }

    const fn abort(&mut self) -> Progress {
        self.mark_aborted();
        Progress::Finished
    }

    /// Marks the connection, so that the client and the target receive a reset when the connection is closed.
    pub(super) const fn mark_aborted(&mut self) {
        self.is_aborted = true;
    }

    /// Adds the number of moved bytes to the port's counters.
    pub(super) fn count_bytes(&mut self, stats: &PortStats) {
        for (transfer, counter) in
            [(&mut self.upload, &stats.bytes_in), (&mut self.download, &stats.bytes_out)]
        {
            let moved_bytes = transfer.take_moved_bytes();
            if moved_bytes > 0 {
                add(counter, moved_bytes);
            }
        }
    }

    /// Enables keep-alive probes to the target. The client's socket has inherited this option from its listener.
    pub(super) fn enable_target_keepalive(&mut self) {
        if !self.has_target_keepalive {
            self.has_target_keepalive = true;
            // The call fails only if the connection has already failed, so its result is ignored.
            let _ = enable_keepalive(self.target.socket());
        }
    }

    /// Closes both sockets.
    pub(super) fn close(mut self, io: &mut IoContext) {
        self.upload.abandon(io);
        self.download.abandon(io);
        if self.is_aborted || self.stage == Stage::Connecting {
            reset_on_close(self.client.socket());
            reset_on_close(self.target.socket());
        }
    }
}

/// Returns the address that the client connected to. If a rule of this network namespace redirected the connection,
/// returns the destination before the redirection. If no rule redirected the connection, returns the local address of
/// the socket. DNAT rules of the node, for example for a hostPort, are not visible in a pod.
fn original_destination(client: &OwnedFd) -> Result<SocketAddr, Errno> {
    let local_address: SocketAddr = getsockname(client)?.try_into()?;
    let original_address = match local_address {
        SocketAddr::V4(_) => sockopt::ip_original_dst(client).map(SocketAddr::V4),
        SocketAddr::V6(_) => sockopt::ipv6_original_dst(client).map(SocketAddr::V6),
    };
    Ok(original_address.unwrap_or(local_address))
}

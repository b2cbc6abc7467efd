//! The thread of the probe: waits for datagrams and for due probes, and reports changed modes. I/O only.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use akrobateo_core::family::Family;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::rand::{GetRandomFlags, getrandom};

use super::prober::{Prober, Transmission};
use super::sockets::FamilySockets;
use super::target::{ForwardingMode, Target, TargetId};
use crate::marks::Marks;

/// The longest wait if there are no targets.
const MAX_IDLE_WAIT: Duration = Duration::from_mins(1);
/// The largest datagram of a probe.
const MAX_DATAGRAM_LENGTH: usize = 65_535;

/// The probe's description of its own node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeNode {
    /// The node's addresses, at most one per family.
    pub addresses: Vec<IpAddr>,
    /// The MTU of the uplink.
    pub uplink_mtu: u32,
    /// The MTU of the tunnel.
    pub tunnel_mtu: u32,
    /// The marks of this agent.
    pub marks: Marks,
}

/// A running probe. If this handle is dropped, the probe stops without an announcement to the peers.
#[derive(Debug)]
pub struct ProbeService {
    commands: Sender<ProbeCommand>,
    wake_writer: OwnedFd,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
enum ProbeCommand {
    SetTargets(Vec<Target>),
    Stop { announces_pause: bool },
}

impl ProbeService {
    /// Starts the probe in the network namespace of the calling thread.
    ///
    /// After a mode has changed, `on_change` receives the modes of all targets.
    pub fn start(
        node: &ProbeNode,
        on_change: impl FnMut(&BTreeMap<TargetId, ForwardingMode>) + Send + 'static,
    ) -> io::Result<Self> {
        let open_sockets = |address: &IpAddr| FamilySockets::open(*address, node.marks);
        let sockets = node.addresses.iter().map(open_sockets).collect::<io::Result<Vec<_>>>()?;
        let (wake_reader, wake_writer) = rustix::pipe::pipe()?;
        let (commands, received_commands) = channel();
        let prober = Prober::new(node.addresses.clone(), node.uplink_mtu, node.tunnel_mtu);
        let worker = ProbeWorker { prober, sockets, wake_reader, commands: received_commands };
        let thread =
            std::thread::Builder::new().name("probe".to_owned()).spawn(move || worker.run(on_change))?;
        Ok(Self { commands, wake_writer, thread: Some(thread) })
    }

    /// Replaces the targets.
    pub fn set_targets(&self, targets: Vec<Target>) {
        self.send(ProbeCommand::SetTargets(targets));
    }

    /// Stops the probe, and announces to the peers that the node's rules remain. The peers then keep their modes for a
    /// minute.
    pub fn pause(mut self) {
        self.stop(true);
    }

    fn stop(&mut self, announces_pause: bool) {
        self.send(ProbeCommand::Stop { announces_pause });
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the probe's thread has panicked");
        }
    }

    fn send(&self, command: ProbeCommand) {
        // An error means that the thread has ended.
        if self.commands.send(command).is_ok() {
            let _ = rustix::io::write(&self.wake_writer, &[0]);
        }
    }
}

impl Drop for ProbeService {
    fn drop(&mut self) {
        if self.thread.is_some() {
            self.stop(false);
        }
    }
}

/// The state of the thread.
#[derive(Debug)]
struct ProbeWorker {
    prober: Prober,
    sockets: Vec<FamilySockets>,
    wake_reader: OwnedFd,
    commands: Receiver<ProbeCommand>,
}

impl ProbeWorker {
    fn run(mut self, mut on_change: impl FnMut(&BTreeMap<TargetId, ForwardingMode>)) {
        let mut reported_modes = BTreeMap::new();
        loop {
            while let Ok(command) = self.commands.try_recv() {
                match command {
                    ProbeCommand::SetTargets(targets) => self.prober.set_targets(targets, Instant::now()),
                    ProbeCommand::Stop { announces_pause } => {
                        let messages =
                            if announces_pause { self.prober.pause_messages() } else { Vec::new() };
                        return self.send(&messages);
                    }
                }
            }
            self.receive();
            let requests = self.prober.on_timer(Instant::now(), random_number);
            self.renew_flows(&requests);
            self.send(&requests);
            let modes = self.prober.forwarding_modes();
            if modes != reported_modes {
                on_change(&modes);
                reported_modes = modes;
            }
            self.wait();
        }
    }

    fn wait(&self) {
        let next_event = self.prober.next_event_at().unwrap_or_else(|| Instant::now() + MAX_IDLE_WAIT);
        let remaining_time = next_event.saturating_duration_since(Instant::now());
        // Rounds up, because poll(2) has a resolution of one millisecond in older kernels.
        let timeout = Timespec::try_from(remaining_time + Duration::from_millis(1)).ok();
        let mut poll_fds = vec![PollFd::new(&self.wake_reader, PollFlags::IN)];
        for family in &self.sockets {
            poll_fds.push(PollFd::new(&family.answer_socket, PollFlags::IN));
            poll_fds.extend(family.request_sockets().map(|socket| PollFd::new(socket, PollFlags::IN)));
        }
        // If a signal interrupts the wait, the caller's loop waits again.
        let _ = poll(&mut poll_fds, timeout.as_ref());
        let is_woken = poll_fds.first().is_some_and(|source| !source.revents().is_empty());
        drop(poll_fds);
        if is_woken {
            let _ = rustix::io::read(&self.wake_reader, &mut [0; 64]);
        }
    }

    fn receive(&mut self) {
        let mut buffer = vec![0; MAX_DATAGRAM_LENGTH];
        let mut answers = Vec::new();
        for family in &self.sockets {
            while let Some((length, source)) = receive_from(&family.answer_socket, &mut buffer) {
                answers.extend(self.prober.on_request(&buffer[..length], source, Instant::now()));
            }
            for socket in family.request_sockets() {
                while let Some((length, _)) = receive_from(socket, &mut buffer) {
                    self.prober.on_answer(&buffer[..length], Instant::now());
                }
            }
        }
        self.send(&answers);
    }

    /// Begins a new flow for each path on which an answer is missing.
    fn renew_flows(&mut self, requests: &[Transmission]) {
        let paths_to_renew: BTreeSet<_> = requests
            .iter()
            .filter(|request| request.needs_new_flow)
            .map(|request| (Family::from_ip(request.destination.ip()), request.path))
            .collect();
        for (family, path) in paths_to_renew {
            let sockets = self.sockets.iter_mut().filter(|sockets| sockets.family() == family);
            for sockets in sockets {
                if let Err(error) = sockets.renew_request_socket(path) {
                    tracing::warn!(%error, "cannot open a socket for probes");
                }
            }
        }
    }

    fn send(&self, transmissions: &[Transmission]) {
        for transmission in transmissions {
            let family = Family::from_ip(transmission.destination.ip());
            let sockets = self.sockets.iter().find(|sockets| sockets.family() == family);
            if let Some(Err(error)) = sockets.map(|sockets| sockets.send(transmission)) {
                // An error is only logged, because the missing answer shows that the path does not work.
                tracing::debug!(%error, peer = transmission.peer, path = ?transmission.path, "cannot send a probe");
            }
        }
    }
}

/// Returns the length and the source of the next datagram, or `None` if there is none.
fn receive_from(socket: &UdpSocket, buffer: &mut [u8]) -> Option<(usize, SocketAddr)> {
    loop {
        match socket.recv_from(buffer) {
            Ok(received) => return Some(received),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
            // An ICMP error for an earlier datagram, which the kernel reports once.
            Err(_) => {}
        }
    }
}

fn random_number() -> u64 {
    let mut bytes = [0; 8];
    // After the start of the system, a call for 8 bytes always succeeds.
    let _ = getrandom(&mut bytes[..], GetRandomFlags::empty());
    u64::from_ne_bytes(bytes)
}

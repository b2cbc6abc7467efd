//! The thread of an agent: waits for commands and for changes by other programs, and applies the configuration. I/O
//! only.

use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::mailbox::{Command, Inbox, Mailbox, Observer};
use super::modes::{Modes, Ways, installed_ways, needs_tunnel, next_ways, set_ways, targets};
use crate::config::{LocalNode, NodeConfig};
use crate::data_path::{DataPath, DataPathError, DataPathWatch};
use crate::probe::{Node as ProbeNode, ProbeService, Way};
use crate::tunnel;

/// The time after which a failed change is tried again.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// The time for which the tunnel remains after the last use. A peer may still send through it.
const TUNNEL_RETENTION: Duration = Duration::from_mins(1);

/// The state of the thread.
#[derive(Debug)]
pub(super) struct Worker {
    data_path: DataPath,
    watch: DataPathWatch,
    mailbox: Mailbox,
    config: NodeConfig,
    ways: Ways,
    has_egress_hook: bool,
    /// True if the direct way to a peer does not work.
    probes_tunnel: bool,
    /// The time at which the tunnel is removed; `None` if it is needed or does not exist.
    keeps_tunnel_until: Option<Instant>,
    probe: Option<RunningProbe>,
    tunnel_device: Option<u32>,
    /// The time at which the configuration must be applied; `None` after it was applied.
    apply_at: Option<Instant>,
}

/// A probe, and the node for which it was started.
#[derive(Debug)]
struct RunningProbe {
    service: ProbeService,
    node: LocalNode,
}

impl Worker {
    pub(super) fn open(config: NodeConfig, mailbox: Mailbox) -> Result<Self, DataPathError> {
        let data_path = DataPath::open()?;
        data_path.check_kernel()?;
        let watch = data_path.open_watch()?;
        let installed = data_path.read_table()?;
        let ways = installed.map(|installed| installed_ways(&installed.table)).unwrap_or_default();
        Ok(Self {
            has_egress_hook: data_path.has_egress_hook()?,
            probes_tunnel: false,
            keeps_tunnel_until: None,
            data_path,
            watch,
            mailbox,
            config,
            ways,
            probe: None,
            tunnel_device: None,
            apply_at: Some(Instant::now()),
        })
    }

    pub(super) fn run(mut self, inbox: &Inbox, mut observer: impl Observer) {
        loop {
            while let Ok(command) = inbox.commands.try_recv() {
                match command {
                    Command::SetConfig(config) => self.config = *config,
                    Command::SetModes(modes) => {
                        observer.on_modes(&modes);
                        self.set_modes(&modes);
                    }
                    Command::Stop => return self.stop(),
                }
                self.apply_at = Some(Instant::now());
            }
            if self.keeps_tunnel_until.is_some_and(|until| until <= Instant::now()) {
                self.keeps_tunnel_until = None;
                self.apply_at = Some(Instant::now());
            }
            self.find_foreign_changes();
            if self.apply_at.is_some_and(|apply_at| apply_at <= Instant::now()) {
                let result = self.apply();
                observer.on_applied(result.as_ref().copied());
                self.apply_at = result.is_err().then(|| Instant::now() + RETRY_INTERVAL);
            }
            self.wait(inbox);
        }
    }

    fn set_modes(&mut self, modes: &Modes) {
        let had_tunnel = self.probes_tunnel || self.ways.values().any(|way| *way == Way::Tunnel);
        self.ways = next_ways(&self.ways, modes);
        self.probes_tunnel = needs_tunnel(modes, had_tunnel);
        if self.probes_tunnel {
            self.keeps_tunnel_until = None;
        } else if had_tunnel {
            self.keeps_tunnel_until = Some(Instant::now() + TUNNEL_RETENTION);
        }
    }

    /// Stops the probe, and announces to the peers that this node's rules remain.
    fn stop(self) {
        if let Some(probe) = self.probe {
            probe.service.pause();
        }
    }

    fn find_foreign_changes(&mut self) {
        let uplink = &self.config.node.uplink;
        let has_changes = self.watch.has_changes(self.tunnel_device, uplink).unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot read notifications of changes");
            true
        });
        if has_changes {
            self.data_path.forget_installed();
            self.apply_at.get_or_insert_with(Instant::now);
        }
    }

    fn apply(&mut self) -> Result<(), DataPathError> {
        set_ways(&mut self.config, &self.ways);
        self.config.probes_tunnel = self.probes_tunnel || self.keeps_tunnel_until.is_some();
        self.config.node.has_egress_hook &= self.has_egress_hook;
        let changes = self.data_path.apply(&self.config)?;
        tracing::debug!(?changes, "applied the configuration");
        self.tunnel_device = self.data_path.tunnel_device()?;
        self.update_probe()
    }

    /// Starts the probe after its rules were installed. Restarts the probe if the node has changed.
    fn update_probe(&mut self) -> Result<(), DataPathError> {
        if self.config.peers.is_empty() {
            self.probe = None;
            return Ok(());
        }
        if self.probe.as_ref().is_none_or(|probe| probe.node != self.config.node) {
            self.probe = None;
            let node = self.config.node.clone();
            let mailbox = self.mailbox.clone();
            let on_change = move |modes: &_| mailbox.send(Command::SetModes(Clone::clone(modes)));
            let service =
                ProbeService::start(&probe_node(&self.config), on_change).map_err(DataPathError::Thread)?;
            self.probe = Some(RunningProbe { service, node });
        }
        if let Some(probe) = &self.probe {
            probe.service.set_targets(targets(&self.config));
        }
        Ok(())
    }

    fn wait(&self, inbox: &Inbox) {
        let next_event = [self.apply_at, self.keeps_tunnel_until].into_iter().flatten().min();
        let remaining_time = next_event.map(|time| time.saturating_duration_since(Instant::now()));
        // Rounds up, because poll(2) counts milliseconds in older kernels.
        let timeout = remaining_time
            .and_then(|remaining_time| Timespec::try_from(remaining_time + Duration::from_millis(1)).ok());
        let [tables, tunnel] = self.watch.sockets();
        let mut poll_fds = [
            PollFd::new(&inbox.wake_reader, PollFlags::IN),
            PollFd::from_borrowed_fd(tables, PollFlags::IN),
            PollFd::from_borrowed_fd(tunnel, PollFlags::IN),
        ];
        // If a signal interrupts the wait, the caller's loop waits again.
        let _ = poll(&mut poll_fds, timeout.as_ref());
        if !poll_fds[0].revents().is_empty() {
            let _ = rustix::io::read(&inbox.wake_reader, &mut [0; 64]);
        }
    }
}

fn probe_node(config: &NodeConfig) -> ProbeNode {
    ProbeNode {
        addresses: config.first_addresses(),
        uplink_mtu: config.node.uplink_mtu,
        tunnel_mtu: tunnel::node_mtu(config),
        marks: config.node.marks,
    }
}

//! The thread of an agent: waits for commands and for changes by other programs, and applies the configuration. I/O
//! only.

use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::mailbox::{AgentCommand, Inbox, Mailbox, Observer};
use super::modes::{
    Modes, PeerPaths, build_probe_targets, choose_last_paths, choose_paths, find_installed_last_paths,
    find_installed_paths, forget_replaced_peers, must_probe_tunnel, set_paths,
};
use super::schedule::Schedule;
use crate::config::{LocalNode, NodeConfig};
use crate::data_path::{DataPath, DataPathError, DataPathWatch};
use crate::probe::{self, PeerPath, ProbeNode, ProbeService};
use crate::tunnel;

/// The time after which the thread tries again to start a probe that did not start.
const PROBE_RETRY_INTERVAL: Duration = Duration::from_secs(5);
/// The time for which the tunnel remains after its last use, because a peer may still send packets through the tunnel.
const TUNNEL_RETENTION_TIME: Duration = Duration::from_mins(1);

/// The minimum time between two searches for stale flows. In a large cluster endpoints change all the time, and the
/// kernel needs about 9 ms to search a conntrack table with 262,144 buckets, regardless of the number of its entries.
const MIN_FLOW_SEARCH_INTERVAL: Duration = Duration::from_secs(1);

/// The state of the thread.
#[derive(Debug)]
pub(super) struct AgentWorker {
    data_path: DataPath,
    watch: DataPathWatch,
    mailbox: Mailbox,
    config_id: u64,
    config: NodeConfig,
    paths: PeerPaths,
    /// The paths of established flows.
    last_paths: PeerPaths,
    has_egress_hook: bool,
    /// True if the probe must try the tunnel, because the direct path to a peer does not work.
    probes_tunnel: bool,
    /// True if a Service has kept the clients' addresses since the start of the thread.
    recognizes_clients: bool,
    /// The time at which the thread removes the tunnel; `None` if the tunnel is needed or does not exist.
    remove_tunnel_at: Option<Instant>,
    /// The time of the last search for stale flows.
    last_flow_search_at: Option<Instant>,
    probe: Option<RunningProbe>,
    tunnel_device_index: Option<u32>,
    schedule: Schedule,
}

/// A probe, and the node for which it was started.
#[derive(Debug)]
struct RunningProbe {
    service: ProbeService,
    node: LocalNode,
}

impl AgentWorker {
    pub(super) fn open(config_id: u64, config: NodeConfig, mailbox: Mailbox) -> Result<Self, DataPathError> {
        let data_path = DataPath::open()?;
        data_path.check_kernel()?;
        let watch = data_path.open_watch()?;
        let installed = data_path.read_table()?;
        let table = installed.as_ref().map(|installed| &installed.table);
        Ok(Self {
            has_egress_hook: data_path.has_egress_hook()?,
            probes_tunnel: false,
            recognizes_clients: false,
            remove_tunnel_at: None,
            last_flow_search_at: None,
            data_path,
            watch,
            mailbox,
            config_id,
            config,
            paths: table.map(find_installed_paths).unwrap_or_default(),
            last_paths: table.map(find_installed_last_paths).unwrap_or_default(),
            probe: None,
            tunnel_device_index: None,
            schedule: Schedule::new(Instant::now()),
        })
    }

    pub(super) fn run(mut self, inbox: &Inbox, mut observer: impl Observer) {
        loop {
            while let Ok(command) = inbox.commands.try_recv() {
                match command {
                    AgentCommand::SetConfig(id, config) => {
                        for paths in [&mut self.paths, &mut self.last_paths] {
                            forget_replaced_peers(paths, &self.config.peers, &config.peers);
                        }
                        (self.config_id, self.config) = (id, *config);
                    }
                    AgentCommand::SetModes(modes) => {
                        observer.on_modes(&modes);
                        self.update_paths(&modes);
                    }
                    AgentCommand::Stop => return self.stop(),
                }
                self.schedule.on_config_change(Instant::now());
            }
            if self.remove_tunnel_at.is_some_and(|until| until <= Instant::now()) {
                self.remove_tunnel_at = None;
                self.schedule.on_config_change(Instant::now());
            }
            self.find_foreign_changes();
            if self.schedule.must_apply_config(Instant::now()) {
                let started_at = Instant::now();
                let result = self.apply();
                observer.on_applied(self.config_id, result.as_ref().map(|_| ()), started_at.elapsed());
                let is_complete = self.delete_stale_affinities() && result.is_ok();
                let repeat_at = result.as_ref().ok().copied().flatten();
                self.schedule.on_applied(Instant::now(), is_complete, repeat_at);
            }
            if self.flow_search_at().is_some_and(|time| time <= Instant::now()) && !self.delete_stale_flows()
            {
                self.schedule.on_applied(Instant::now(), false, None);
            }
            self.wait(inbox);
        }
    }

    fn update_paths(&mut self, modes: &Modes) {
        let had_tunnel = self.probes_tunnel || self.paths.values().any(|path| *path == PeerPath::Tunnel);
        self.paths = choose_paths(&self.paths, modes);
        self.last_paths = choose_last_paths(&self.last_paths, &self.paths, modes);
        self.probes_tunnel = must_probe_tunnel(modes, had_tunnel);
        if self.probes_tunnel {
            self.remove_tunnel_at = None;
        } else if had_tunnel {
            self.remove_tunnel_at = Some(Instant::now() + TUNNEL_RETENTION_TIME);
        }
    }

    /// Stops the probe, and announces to the peers that this node's rules remain.
    fn stop(self) {
        if let Some(probe) = self.probe {
            probe.service.pause();
        }
    }

    fn find_foreign_changes(&mut self) {
        let now = Instant::now();
        if self.schedule.must_reopen_watch(now) {
            match self.data_path.open_watch() {
                Ok(watch) => self.watch = watch,
                Err(error) => return self.on_watch_failure(&error, now),
            }
        }
        if !self.schedule.uses_watch() {
            return;
        }
        match self.watch.has_changes(self.tunnel_device_index, &self.config.node.uplink) {
            Ok(false) => {}
            Ok(true) => {
                self.data_path.forget_installed_state();
                self.schedule.on_foreign_change(now);
            }
            Err(error) => self.on_watch_failure(&error, now),
        }
    }

    /// Stops the use of the watch for some time. Without this pause, a watch that fails repeatedly would use all of the
    /// processor's time.
    fn on_watch_failure(&mut self, error: &DataPathError, now: Instant) {
        tracing::warn!(%error, "cannot read notifications of changes");
        self.data_path.forget_installed_state();
        self.schedule.on_watch_failure(now);
    }

    /// Applies the configuration. Returns the time at which a part of the change must be repeated.
    fn apply(&mut self) -> Result<Option<Instant>, DataPathError> {
        set_paths(&mut self.config, &self.paths, &self.last_paths);
        self.config.probes_tunnel = self.probes_tunnel || self.remove_tunnel_at.is_some();
        self.recognizes_clients |= self.config.services.iter().any(|service| service.keeps_client_address);
        self.config.recognizes_clients = self.recognizes_clients;
        self.config.node.has_egress_hook &= self.has_egress_hook;
        let changes = self.data_path.install(&self.config)?;
        tracing::debug!(?changes, "applied the configuration");
        self.tunnel_device_index = self.data_path.tunnel_device_index()?;
        if changes.tunnel_changes > 0
            && !self.data_path.skip_own_tunnel_changes(&self.watch, &self.config.node.uplink)?
        {
            self.data_path.forget_installed_state();
            return Ok(Some(Instant::now()));
        }
        let probe_retry_at = self.update_probe();
        Ok([probe_retry_at, self.data_path.tunnel_retry_at()].into_iter().flatten().min())
    }

    /// Deletes the affinities that earlier rules have left behind. Returns true after a success.
    ///
    /// The agent reports the new rules to the observer before this step, because new flows already follow the new
    /// rules.
    fn delete_stale_affinities(&mut self) -> bool {
        log_failure(self.data_path.delete_stale_affinities())
    }

    /// Deletes the flows and elements that earlier rules have left behind. Returns true after a success.
    fn delete_stale_flows(&mut self) -> bool {
        let now = Instant::now();
        self.last_flow_search_at = Some(now);
        log_failure(self.data_path.delete_stale_flows(now))
    }

    /// Returns the time of the next search for stale flows; `None` if no flow is stale.
    fn flow_search_at(&self) -> Option<Instant> {
        let stale_at = self.data_path.stale_flows_at(Instant::now())?;
        let last_search_at = self.last_flow_search_at.filter(|_| !self.data_path.must_check_leftover_flows());
        Some(last_search_at.map_or(stale_at, |time| stale_at.max(time + MIN_FLOW_SEARCH_INTERVAL)))
    }

    /// Starts the probe. The rules of the probe must already be installed. Restarts the probe if the node has changed.
    /// If the probe cannot start, the paths remain, and the function returns the time of the next attempt.
    fn update_probe(&mut self) -> Option<Instant> {
        if !self.config.keeps_client_addresses() {
            // The table has no rules for the probe, so the probe would receive no answers. Without answers, the probe
            // would wrongly report a broken network.
            if self.probe.take().is_some() {
                self.mailbox.send(AgentCommand::SetModes(Modes::new()));
            }
            return None;
        }
        if self.probe.as_ref().is_none_or(|probe| probe.node != self.config.node) {
            self.probe = None;
            let node = self.config.node.clone();
            let mailbox = self.mailbox.clone();
            let on_change = move |modes: &_| mailbox.send(AgentCommand::SetModes(Clone::clone(modes)));
            match ProbeService::start(&build_probe_node(&self.config), on_change) {
                Ok(service) => self.probe = Some(RunningProbe { service, node }),
                Err(error) => {
                    tracing::warn!(
                        %error, port = probe::PROBE_PORT,
                        "cannot start the probe of the paths to other nodes: no other program may use its UDP port"
                    );
                    return Some(Instant::now() + PROBE_RETRY_INTERVAL);
                }
            }
        }
        if let Some(probe) = &self.probe {
            let has_tunnel = self.data_path.tunnel_error().is_none();
            probe.service.set_targets(build_probe_targets(&self.config, has_tunnel));
        }
        None
    }

    fn wait(&self, inbox: &Inbox) {
        let times = [self.schedule.next_step_at(), self.remove_tunnel_at, self.flow_search_at()];
        let next_event = times.into_iter().flatten().min();
        let remaining_time = next_event.map(|time| time.saturating_duration_since(Instant::now()));
        // Rounds up, because poll(2) has a resolution of one millisecond in older kernels.
        let timeout = remaining_time
            .and_then(|remaining_time| Timespec::try_from(remaining_time + Duration::from_millis(1)).ok());
        let [tables, tunnel] = self.watch.sockets();
        let mut poll_fds = vec![PollFd::new(&inbox.wake_reader, PollFlags::IN)];
        if self.schedule.uses_watch() {
            poll_fds.extend([tables, tunnel].map(|socket| PollFd::from_borrowed_fd(socket, PollFlags::IN)));
        }
        // If a signal interrupts the wait, the caller's loop waits again.
        let _ = poll(&mut poll_fds, timeout.as_ref());
        let is_woken = poll_fds.first().is_some_and(|source| !source.revents().is_empty());
        drop(poll_fds);
        if is_woken {
            let _ = rustix::io::read(&inbox.wake_reader, &mut [0; 64]);
        }
    }
}

/// Logs the error of a deletion. Returns true after a success.
fn log_failure(result: Result<usize, DataPathError>) -> bool {
    let log = |error: &_| tracing::warn!(%error, "cannot delete stale flows and affinities; trying again");
    result.inspect_err(log).is_ok()
}

fn build_probe_node(config: &NodeConfig) -> ProbeNode {
    ProbeNode {
        addresses: config.first_address_of_each_family(),
        uplink_mtu: config.node.uplink_mtu,
        tunnel_mtu: tunnel::tunnel_mtu_of_node(config),
        marks: config.node.marks,
    }
}

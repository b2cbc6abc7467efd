//! Derives the forwarding mode towards one peer, in one family, from the results of both nodes. Pure.

use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use akrobateo_core::family::Family;

use super::peer_path::{PathResult, PathResults, PathState, PeerPath};
use crate::marks::NodeNumber;

/// The time for which missing answers are ignored after a peer's agent has announced its end.
const MAX_PAUSE_TIME: Duration = Duration::from_mins(1);

/// A peer and a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TargetId {
    /// The peer's number.
    pub peer: NodeNumber,
    /// The family of the packets.
    pub family: Family,
}

/// The probe's description of a peer, for one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The peer and the family.
    pub id: TargetId,
    /// The address of the peer's node.
    pub node_address: IpAddr,
    /// An address in a range of the peer's pods. A pod need not have this address.
    pub pod_range_address: IpAddr,
    /// True if the tunnel to this peer exists.
    pub has_tunnel: bool,
}

/// The forwarding mode towards a peer. The mode decides which source address the peer's endpoints see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForwardingMode {
    /// This path keeps the client's address.
    Keep(PeerPath),
    /// The node's address replaces the client's address.
    Masquerade(MasqueradeReason),
}

/// The reason why the client's address is masqueraded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MasqueradeReason {
    /// The first probes are not finished yet. An agent that has just started does not change the mode in
    /// its table.
    Undecided,
    /// All probes remain unanswered.
    NoAnswer,
    /// Only small probes are answered.
    FullSizeLost,
    /// This node's probes are answered, but the peer's probes are not answered.
    OneWay,
}

impl fmt::Display for MasqueradeReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Undecided => "the first probes are not finished",
            Self::NoAnswer => {
                "probes are not answered: the peer has no agent, or the network or a firewall drops the packets"
            }
            Self::FullSizeLost => {
                "only small packets arrive: the network's MTU is smaller than the node's MTU"
            }
            Self::OneWay => "packets arrive in one direction only: the probes of the peer are not answered",
        })
    }
}

/// The state of a target.
#[derive(Clone, Debug)]
pub(super) struct TargetState {
    pub(super) target: Target,
    paths: [PathState; 2],
    results_from_peer: PathResults,
    paused_until: Option<Instant>,
}

impl TargetState {
    pub(super) fn new(target: Target, now: Instant) -> Self {
        let paths = PeerPath::ALL.map(|_| PathState::new(now));
        Self { target, paths, results_from_peer: PathResults::new(PathResult::Undecided), paused_until: None }
    }

    /// Returns the paths that exist.
    pub(super) fn paths(&self) -> impl Iterator<Item = PeerPath> + use<> {
        let has_tunnel = self.target.has_tunnel;
        PeerPath::ALL.into_iter().filter(move |path| *path == PeerPath::Direct || has_tunnel)
    }

    pub(super) const fn path(&self, path: PeerPath) -> &PathState {
        &self.paths[path as usize]
    }

    pub(super) const fn path_mut(&mut self, path: PeerPath) -> &mut PathState {
        &mut self.paths[path as usize]
    }

    /// Replaces the target's description. The results remain if the same addresses are probed.
    pub(super) fn set_target(&mut self, target: Target, now: Instant) {
        let has_same_addresses = (self.target.node_address, self.target.pod_range_address)
            == (target.node_address, target.pod_range_address);
        if !has_same_addresses {
            *self = Self::new(target, now);
            return;
        }
        if !target.has_tunnel {
            *self.path_mut(PeerPath::Tunnel) = PathState::new(now);
        }
        self.target = target;
    }

    /// Returns the results of this node's probes.
    pub(super) fn own_results(&self) -> PathResults {
        let mut results = PathResults::new(PathResult::Fails);
        for path in self.paths() {
            results.set(path, self.path(path).result());
        }
        results
    }

    /// Runs `change`. If `change` alters this node's results, the peer receives the new results at once, with a probe
    /// of each path.
    pub(super) fn update(&mut self, now: Instant, change: impl FnOnce(&mut Self)) {
        let results_before = self.own_results();
        change(self);
        if self.own_results() != results_before {
            for path in self.paths() {
                self.path_mut(path).probe_now(now);
            }
        }
    }

    /// Counts missing answers.
    pub(super) fn on_timer(&mut self, now: Instant) {
        let is_paused = self.paused_until.is_some_and(|until| now < until);
        self.update(now, |state| {
            for path in state.paths() {
                state.path_mut(path).on_timer(now, is_paused);
            }
        });
    }

    /// Stores the results of the peer. A message from the peer also ends the peer's pause.
    ///
    /// The agent of the peer is undecided after its start. The peer's earlier results remain valid for that time.
    pub(super) fn on_results_from_peer(&mut self, results: PathResults) {
        for path in PeerPath::ALL {
            if results.get(path) != PathResult::Undecided {
                self.results_from_peer.set(path, results.get(path));
            }
        }
        self.paused_until = None;
    }

    /// Starts the pause of a peer whose agent stops while its rules remain.
    pub(super) fn on_pause(&mut self, now: Instant) {
        self.paused_until = Some(now + MAX_PAUSE_TIME);
    }

    pub(super) fn mode(&self) -> ForwardingMode {
        let has_results = |path: PeerPath, own_result, peer_result| {
            self.path(path).result() == own_result && self.results_from_peer.get(path) == peer_result
        };
        let any_path_has_results =
            |own_result, peer_result| self.paths().any(|path| has_results(path, own_result, peer_result));
        if let Some(path) = self.paths().find(|path| has_results(*path, PathResult::Works, PathResult::Works))
        {
            return ForwardingMode::Keep(path);
        }
        let is_undecided = self.paths().any(|path| self.path(path).result() == PathResult::Undecided);
        ForwardingMode::Masquerade(
            if is_undecided || any_path_has_results(PathResult::Works, PathResult::Undecided) {
                MasqueradeReason::Undecided
            } else if any_path_has_results(PathResult::Works, PathResult::Fails) {
                MasqueradeReason::OneWay
            } else if self.paths().any(|path| self.path(path).passes_only_small_packets) {
                MasqueradeReason::FullSizeLost
            } else {
                MasqueradeReason::NoAnswer
            },
        )
    }
}

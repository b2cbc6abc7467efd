//! Derives the forwarding mode towards one peer, in one family, from the results of both nodes. Pure.

use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use akrobateo_core::family::Family;

use super::way::{Results, Way, WayResult, WayState};
use crate::marks::NodeNumber;

/// The time for which missing answers are ignored after a peer's agent has announced its end.
const MAX_PAUSE: Duration = Duration::from_mins(1);

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
    /// The peer's node address.
    pub node_address: IpAddr,
    /// An address in a range of the peer's pods. A pod need not have this address.
    pub pod_address: IpAddr,
    /// True if the tunnel to this peer exists.
    pub has_tunnel: bool,
}

/// The forwarding mode towards a peer, which decides which source address its endpoints see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForwardingMode {
    /// This way keeps the client's address.
    Keep(Way),
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
    ways: [WayState; 2],
    results_of_peer: Results,
    paused_until: Option<Instant>,
}

impl TargetState {
    pub(super) fn new(target: Target, now: Instant) -> Self {
        let ways = Way::ALL.map(|_| WayState::new(now));
        Self { target, ways, results_of_peer: Results::new(WayResult::Undecided), paused_until: None }
    }

    /// Returns the ways that exist.
    pub(super) fn ways(&self) -> impl Iterator<Item = Way> + use<> {
        let has_tunnel = self.target.has_tunnel;
        Way::ALL.into_iter().filter(move |way| *way == Way::Direct || has_tunnel)
    }

    pub(super) const fn way(&self, way: Way) -> &WayState {
        &self.ways[way as usize]
    }

    pub(super) const fn way_mut(&mut self, way: Way) -> &mut WayState {
        &mut self.ways[way as usize]
    }

    /// Replaces the target's description. The results remain if the same addresses are probed.
    pub(super) fn set_target(&mut self, target: Target, now: Instant) {
        let has_same_addresses =
            (self.target.node_address, self.target.pod_address) == (target.node_address, target.pod_address);
        if !has_same_addresses {
            *self = Self::new(target, now);
            return;
        }
        if !target.has_tunnel {
            *self.way_mut(Way::Tunnel) = WayState::new(now);
        }
        self.target = target;
    }

    /// Returns the results of this node's probes.
    pub(super) fn results(&self) -> Results {
        let mut results = Results::new(WayResult::Fails);
        for way in self.ways() {
            results.set(way, self.way(way).result());
        }
        results
    }

    /// Runs `change`. If `change` alters this node's results, the peer receives the new results at once, with a probe
    /// of each way.
    pub(super) fn update(&mut self, now: Instant, change: impl FnOnce(&mut Self)) {
        let results_before = self.results();
        change(self);
        if self.results() != results_before {
            for way in self.ways() {
                self.way_mut(way).probe_now(now);
            }
        }
    }

    /// Counts missing answers.
    pub(super) fn on_time(&mut self, now: Instant) {
        let is_paused = self.paused_until.is_some_and(|until| now < until);
        self.update(now, |state| {
            for way in state.ways() {
                state.way_mut(way).on_time(now, is_paused);
            }
        });
    }

    /// Stores the results of the peer. A message from the peer also ends its pause.
    ///
    /// The agent of the peer is undecided after its start. The peer's earlier results remain valid for that time.
    pub(super) fn on_results_of_peer(&mut self, results: Results) {
        for way in Way::ALL {
            if results.get(way) != WayResult::Undecided {
                self.results_of_peer.set(way, results.get(way));
            }
        }
        self.paused_until = None;
    }

    /// Starts the pause of a peer whose agent stops while its rules remain.
    pub(super) fn on_pause(&mut self, now: Instant) {
        self.paused_until = Some(now + MAX_PAUSE);
    }

    pub(super) fn mode(&self) -> ForwardingMode {
        let has_results = |way: Way, own_result, peer_result| {
            self.way(way).result() == own_result && self.results_of_peer.get(way) == peer_result
        };
        let any_way_has_results =
            |own_result, peer_result| self.ways().any(|way| has_results(way, own_result, peer_result));
        if let Some(way) = self.ways().find(|way| has_results(*way, WayResult::Works, WayResult::Works)) {
            return ForwardingMode::Keep(way);
        }
        let is_undecided = self.ways().any(|way| self.way(way).result() == WayResult::Undecided);
        ForwardingMode::Masquerade(
            if is_undecided || any_way_has_results(WayResult::Works, WayResult::Undecided) {
                MasqueradeReason::Undecided
            } else if any_way_has_results(WayResult::Works, WayResult::Fails) {
                MasqueradeReason::OneWay
            } else if self.ways().any(|way| self.way(way).passes_only_small_packets) {
                MasqueradeReason::FullSizeLost
            } else {
                MasqueradeReason::NoAnswer
            },
        )
    }
}

//! Decides for all targets which datagrams to send, and interprets received datagrams. Pure: the caller supplies the
//! time, the random numbers and the datagrams.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use akrobateo_core::family::Family;

use super::message::{MIN_MESSAGE_LENGTH, Message, MessageKind, PROBE_PORT};
use super::peer_path::{PathResult, PeerPath};
use super::target::{ForwardingMode, Target, TargetId, TargetState};
use crate::marks::NodeNumber;

/// A datagram to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transmission {
    /// The path that the datagram takes.
    pub path: PeerPath,
    /// The peer's number.
    pub peer: NodeNumber,
    /// True if the datagram is an answer. An answer must come from the address and port at which the request arrived.
    pub is_answer: bool,
    /// True if the last request on this path had no answer. The kernel may then have an outdated conntrack entry for
    /// the flow.
    pub needs_new_flow: bool,
    /// The destination.
    pub destination: SocketAddr,
    /// The datagram.
    pub bytes: Vec<u8>,
}

/// The probe of one node.
#[derive(Clone, Debug)]
pub struct Prober {
    addresses: Vec<IpAddr>,
    uplink_mtu: u32,
    tunnel_mtu: u32,
    targets: BTreeMap<TargetId, TargetState>,
}

impl Prober {
    /// Creates the probe of a node with these addresses, at most one per family.
    #[must_use]
    pub const fn new(addresses: Vec<IpAddr>, uplink_mtu: u32, tunnel_mtu: u32) -> Self {
        Self { addresses, uplink_mtu, tunnel_mtu, targets: BTreeMap::new() }
    }

    /// Replaces the targets. A target is ignored if the node has no address of the target's family.
    pub fn set_targets(&mut self, targets: Vec<Target>, now: Instant) {
        let mut previous_targets = std::mem::take(&mut self.targets);
        for target in targets {
            if self.own_address(target.id.family).is_none() {
                continue;
            }
            let id = target.id;
            let state = match previous_targets.remove(&id) {
                Some(mut state) => {
                    state.set_target(target, now);
                    state
                }
                None => TargetState::new(target, now),
            };
            self.targets.insert(id, state);
        }
    }

    /// Returns the modes of all targets.
    #[must_use]
    pub fn forwarding_modes(&self) -> BTreeMap<TargetId, ForwardingMode> {
        self.targets.iter().map(|(id, state)| (*id, state.mode())).collect()
    }

    /// Returns the time at which [`Self::on_timer`] must be called next, or `None` without targets.
    #[must_use]
    pub fn next_event_at(&self) -> Option<Instant> {
        let next_event_of_target =
            |state: &TargetState| state.paths().map(|path| state.path(path).next_event_at()).min();
        self.targets.values().filter_map(next_event_of_target).min()
    }

    /// Counts missing answers, and returns the requests to send at this time.
    pub fn on_timer(&mut self, now: Instant, mut next_nonce: impl FnMut() -> u64) -> Vec<Transmission> {
        let mut transmissions = Vec::new();
        let ids: Vec<_> = self.targets.keys().copied().collect();
        for id in ids {
            let Some(sender) = self.own_address(id.family) else { continue };
            let payload_lens = PeerPath::ALL.map(|path| (path, self.payload_length(path, id.family)));
            let Some(state) = self.targets.get_mut(&id) else { continue };
            state.on_timer(now);
            for (path, length) in payload_lens {
                if state.paths().any(|other| other == path) && state.path(path).is_probe_due(now) {
                    let nonce = next_nonce();
                    transmissions.extend(build_requests(state, path, length, nonce, sender));
                    state.path_mut(path).on_sent(nonce, now);
                }
            }
        }
        transmissions
    }

    /// Handles a datagram that arrived at port [`PROBE_PORT`] of the node. Returns the answer if the datagram is a
    /// request of a peer.
    pub fn on_request(&mut self, bytes: &[u8], source: SocketAddr, now: Instant) -> Option<Transmission> {
        let request = Message::decode(bytes)?;
        let id = self.find_target(request.sender)?;
        let sender = self.own_address(id.family)?;
        let length = self.payload_length(request.path, id.family);
        let state = self.targets.get_mut(&id)?;
        match request.kind {
            MessageKind::Answer => return None,
            MessageKind::Pause => {
                state.on_pause(now);
                return None;
            }
            MessageKind::Request => state.on_results_from_peer(request.results),
        }
        let answer = Message { kind: MessageKind::Answer, results: state.own_results(), sender, ..request };
        Some(Transmission {
            path: request.path,
            peer: id.peer,
            is_answer: true,
            needs_new_flow: false,
            destination: source,
            bytes: answer.encode(if request.is_small { MIN_MESSAGE_LENGTH } else { length }),
        })
    }

    /// Handles a datagram that arrived at a port from which requests were sent.
    pub fn on_answer(&mut self, bytes: &[u8], now: Instant) {
        let Some(answer) = Message::decode(bytes).filter(|message| message.kind == MessageKind::Answer)
        else {
            return;
        };
        let Some(id) = self.find_target(answer.sender) else { return };
        let Some(state) = self.targets.get_mut(&id) else { return };
        state.update(now, |state| {
            let path = state.path_mut(answer.path);
            let is_expected = if answer.is_small {
                path.on_small_answer(answer.nonce)
            } else {
                path.on_answer(answer.nonce, now)
            };
            if is_expected {
                state.on_results_from_peer(answer.results);
            }
        });
    }

    /// Returns the messages that announce to all peers that this agent stops and that its rules remain.
    #[must_use]
    pub fn pause_messages(&self) -> Vec<Transmission> {
        let messages_to_target = |state: &TargetState| {
            let sender = self.own_address(state.target.id.family)?;
            let message = |path| Message {
                kind: MessageKind::Pause,
                path,
                is_small: true,
                results: state.own_results(),
                nonce: 0,
                sender,
            };
            let working_paths = state.paths().filter(|path| state.path(*path).result() == PathResult::Works);
            let messages: Vec<_> = working_paths
                .map(|path| build_transmission(state, &message(path), MIN_MESSAGE_LENGTH))
                .collect();
            Some(messages)
        };
        self.targets.values().filter_map(messages_to_target).flatten().collect()
    }

    fn own_address(&self, family: Family) -> Option<IpAddr> {
        self.addresses.iter().copied().find(|address| Family::from_ip(*address) == family)
    }

    fn find_target(&self, node_address: IpAddr) -> Option<TargetId> {
        let is_sender = |state: &&TargetState| state.target.node_address == node_address;
        self.targets.values().find(is_sender).map(|state| state.target.id)
    }

    /// Returns the length of the UDP payload that fills the MTU of a path.
    fn payload_length(&self, path: PeerPath, family: Family) -> usize {
        let mtu = match path {
            PeerPath::Direct => self.uplink_mtu,
            PeerPath::Tunnel => self.tunnel_mtu,
        };
        let headers_length = match family {
            Family::V4 => 20 + 8,
            Family::V6 => 40 + 8,
        };
        usize::try_from(mtu.saturating_sub(headers_length)).unwrap_or(MIN_MESSAGE_LENGTH)
    }
}

/// Returns the requests to send on a path. While the path does not work, the function adds a small request. An answer
/// to the small request shows that only large packets are lost.
fn build_requests(
    state: &TargetState,
    path: PeerPath,
    length: usize,
    nonce: u64,
    sender: IpAddr,
) -> impl Iterator<Item = Transmission> {
    let small_request =
        (state.path(path).result() != PathResult::Works).then_some((true, MIN_MESSAGE_LENGTH));
    [(false, length)].into_iter().chain(small_request).map(move |(is_small, length)| {
        let message = Message {
            kind: MessageKind::Request,
            path,
            is_small,
            results: state.own_results(),
            nonce,
            sender,
        };
        build_transmission(state, &message, length)
    })
}

fn build_transmission(state: &TargetState, message: &Message, length: usize) -> Transmission {
    Transmission {
        path: message.path,
        peer: state.target.id.peer,
        is_answer: false,
        needs_new_flow: state.path(message.path).has_missing_answer(),
        destination: (state.target.pod_range_address, PROBE_PORT).into(),
        bytes: message.encode(length),
    }
}

//! The sockets of the probe. I/O only.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Instant;

use akrobateo_core::family::Family;
use rustix::net::sockopt::{
    Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery, set_ip_mtu_discover, set_ipv6_mtu_discover,
};
use socket2::SockRef;

use super::message::PROBE_PORT;
use super::peer_path::{ANSWER_TIMEOUT, PeerPath};
use super::prober::Transmission;
use crate::marks::Marks;

/// The sockets of one family.
#[derive(Debug)]
pub(super) struct FamilySockets {
    address: IpAddr,
    marks: Marks,
    /// Receives requests and sends the answers.
    pub(super) answer_socket: UdpSocket,
    request_sockets: [RequestSockets; 2],
}

/// The sockets that send the requests of one path and receive the answers.
#[derive(Debug)]
struct RequestSockets {
    current_socket: UdpSocket,
    /// The previous socket, which still receives answers to requests from before `opened_at`.
    previous_socket: Option<UdpSocket>,
    opened_at: Instant,
}

impl FamilySockets {
    /// Opens the sockets for a node's address.
    pub(super) fn open(address: IpAddr, marks: Marks) -> io::Result<Self> {
        let answer_socket = open_socket(address, PROBE_PORT)?;
        let request_sockets = [RequestSockets::open(address)?, RequestSockets::open(address)?];
        Ok(Self { address, marks, answer_socket, request_sockets })
    }

    pub(super) fn family(&self) -> Family {
        Family::from_ip(self.address)
    }

    /// Returns the sockets that receive answers.
    pub(super) fn request_sockets(&self) -> impl Iterator<Item = &UdpSocket> {
        self.request_sockets
            .iter()
            .flat_map(|sockets| [Some(&sockets.current_socket), sockets.previous_socket.as_ref()])
            .flatten()
    }

    /// Opens a new source port for a path, so that the next request begins a new flow.
    ///
    /// Does nothing if the current port is younger than [`ANSWER_TIMEOUT`], because answers to the previous port may
    /// still arrive.
    pub(super) fn renew_request_socket(&mut self, path: PeerPath) -> io::Result<()> {
        let sockets = &mut self.request_sockets[path as usize];
        if sockets.opened_at.elapsed() >= ANSWER_TIMEOUT {
            let new_sockets = RequestSockets::open(self.address)?;
            let previous_sockets = std::mem::replace(sockets, new_sockets);
            sockets.previous_socket = Some(previous_sockets.current_socket);
        }
        Ok(())
    }

    /// Sends a datagram with the mark that its path needs.
    pub(super) fn send(&self, transmission: &Transmission) -> io::Result<()> {
        let Transmission { path, peer, is_answer, destination, bytes, .. } = transmission;
        let socket = if *is_answer {
            &self.answer_socket
        } else {
            &self.request_sockets[*path as usize].current_socket
        };
        let mark = match (path, is_answer) {
            (PeerPath::Tunnel, _) => self.marks.tunnel_mark(*peer),
            (PeerPath::Direct, true) => self.marks.direct_mark(*peer),
            (PeerPath::Direct, false) => self.marks.probe_mark(),
        };
        SockRef::from(socket).set_mark(mark)?;
        socket.send_to(bytes, destination).map(drop)
    }
}

impl RequestSockets {
    fn open(address: IpAddr) -> io::Result<Self> {
        Ok(Self {
            current_socket: open_socket(address, 0)?,
            previous_socket: None,
            opened_at: Instant::now(),
        })
    }
}

/// Opens a socket whose datagrams are never fragmented.
fn open_socket(address: IpAddr, port: u16) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(SocketAddr::new(address, port))?;
    socket.set_nonblocking(true)?;
    // With PROBE, the kernel ignores the path MTU that it has learnt. A probe therefore shows when the MTU grows again.
    match Family::from_ip(address) {
        Family::V4 => set_ip_mtu_discover(&socket, Ipv4PathMtuDiscovery::PROBE)?,
        Family::V6 => set_ipv6_mtu_discover(&socket, Ipv6PathMtuDiscovery::PROBE)?,
    }
    Ok(socket)
}

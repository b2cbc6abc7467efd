//! Datagrams go out to targets, and answers back to clients. I/O only.

use std::net::SocketAddr;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, recvfrom, send, sendto};

use super::poller::Token;
use super::slab::Key;
use super::stats::{DialFailure, add};
use super::udp_sessions::Flow;
use super::worker::Worker;

/// Datagrams that are passed on before others have their turn.
const AT_A_TIME: usize = 64;

impl Worker {
    /// Passes on the datagrams that have arrived at a port.
    pub(super) fn receive(&mut self, at: u32) {
        for _ in 0..AT_A_TIME {
            let Some(arrivals) = self.datagrams.get(at as usize) else { return };
            let port = arrivals.port;
            match recvfrom(&arrivals.socket, &mut self.tools.buffer[..], RecvFlags::empty()) {
                Ok((len, _, client)) => {
                    if let Some(client) = client.and_then(|client| client.try_into().ok()) {
                        self.forward(at, port, client, len);
                    }
                }
                Err(Errno::AGAIN) => return,
                // Of an earlier datagram: there may be more now.
                Err(_) => {}
            }
        }
        self.again.push_back(Token::Datagrams(at));
    }

    /// Sends what is in the buffer to the target.
    fn forward(&mut self, at: u32, port: usize, client: SocketAddr, len: usize) {
        if !self.is_allowed(client.ip()) {
            return add(&self.stats.port(port).refused, 1);
        }
        let Some(key) = self.flow(at, port, client) else {
            return add(&self.stats.port(port).dropped, 1);
        };
        let Some(flow) = self.flows.get(key) else { return };
        flow.since = self.tools.now;
        let datagram = &self.tools.buffer[..len];
        let mut sent = send(&flow.socket, datagram, SendFlags::NOSIGNAL);
        if let Err(error @ (Errno::CONNREFUSED | Errno::HOSTUNREACH | Errno::NETUNREACH)) = sent {
            // What became of an earlier datagram; this one was not tried.
            sent = send(&flow.socket, datagram, SendFlags::NOSIGNAL);
            self.complain(port, error.into());
        }
        match sent {
            Ok(_) => add(&self.stats.port(port).up, len as u64),
            Err(_) => add(&self.stats.port(port).dropped, 1),
        }
    }

    /// The client's flow, begun if there is room for it.
    fn flow(&mut self, at: u32, port: usize, client: SocketAddr) -> Option<Key> {
        if let Some(key) = self.flows.of(at, client) {
            return Some(key);
        }
        if self.draining {
            return None;
        }
        if !self.shared.flows.enter() {
            let evicted = self.flows.evict()?;
            self.flow_ended(&evicted);
            // The place that has become free may be taken by another worker.
            if !self.shared.flows.enter() {
                return None;
            }
        }
        match self.begin_flow(at, client, self.shared.ports[port].target) {
            Ok(key) => {
                add(&self.stats.port(port).opened, 1);
                add(&self.stats.port(port).forwarded, 1);
                self.sweep_by(self.flows.next_expiry().unwrap_or(u64::MAX));
                Some(key)
            }
            Err(error) => {
                self.shared.flows.left();
                self.complain(port, DialFailure::from(error));
                None
            }
        }
    }

    fn begin_flow(&mut self, at: u32, client: SocketAddr, target: SocketAddr) -> Result<Key, Errno> {
        let key = self.flows.insert(Flow::dial(at, client, target, self.tools.now)?);
        let added = self.flows.get(key).map(|flow| self.poller.add(&flow.socket, Token::Flow(key)));
        if let Some(Err(error)) = added {
            self.flows.remove(key);
            return Err(error);
        }
        Ok(key)
    }

    fn flow_ended(&self, flow: &Flow) {
        self.shared.flows.left();
        if let Some(arrivals) = self.datagrams.get(flow.at as usize) {
            add(&self.stats.port(arrivals.port).closed, 1);
        }
    }

    /// Passes on what the target has answered.
    pub(super) fn answer(&mut self, key: Key) {
        for _ in 0..AT_A_TIME {
            let Some(flow) = self.flows.get(key) else { return };
            let Some(arrivals) = self.datagrams.get(flow.at as usize) else { return };
            let port = arrivals.port;
            match recv(&flow.socket, &mut self.tools.buffer[..], RecvFlags::empty()) {
                Ok((len, _)) => {
                    flow.since = self.tools.now;
                    flow.answered = true;
                    let datagram = &self.tools.buffer[..len];
                    match sendto(&arrivals.socket, datagram, SendFlags::NOSIGNAL, &flow.client) {
                        Ok(_) => add(&self.stats.port(port).down, len as u64),
                        Err(_) => add(&self.stats.port(port).dropped, 1),
                    }
                }
                Err(Errno::AGAIN) => return,
                // The target's machine says that nobody is there.
                Err(error) => self.complain(port, error.into()),
            }
        }
        self.again.push_back(Token::Flow(key));
    }

    /// Ends the flows whose time is over.
    pub(super) fn expire_flows(&mut self) {
        while let Some(flow) = self.flows.expire(self.tools.now) {
            self.flow_ended(&flow);
        }
    }
}

//! Waits for the kernel's notifications of changed objects. I/O only.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::codec;
use crate::objects::Owner;
use crate::socket::{SocketError, split_messages};

/// The multicast groups of links, neighbours, addresses, routes, rules and IPv4 settings (`RTNLGRP_*`), as bits.
const MULTICAST_GROUPS: u32 = group_bit(1)
    | group_bit(3)
    | group_bit(5)
    | group_bit(7)
    | group_bit(8)
    | group_bit(9)
    | group_bit(11)
    | group_bit(19)
    | group_bit(24);
const BUFFER_LENGTH: usize = 32 * 1024;

const fn group_bit(number: u32) -> u32 {
    1 << (number - 1)
}

/// Receives the kernel's notifications in the network namespace of the thread that opened the monitor.
#[derive(Debug)]
pub struct Monitor {
    socket: Socket,
    owner: Owner,
}

impl Monitor {
    /// Opens a monitor of the objects of an owner.
    ///
    /// A caller must open the monitor before the caller reads the objects. Otherwise the caller can miss a change.
    pub fn open(owner: Owner) -> Result<Self, SocketError> {
        let mut socket = Socket::new(NETLINK_ROUTE).map_err(SocketError::OpenFailed)?;
        socket.bind(&SocketAddr::new(0, MULTICAST_GROUPS)).map_err(SocketError::OpenFailed)?;
        socket.set_non_blocking(true).map_err(SocketError::OpenFailed)?;
        Ok(Self { socket, owner })
    }

    /// Waits until an object may have changed, and then returns true. Returns false if `timeout` ends first.
    ///
    /// `device_index` is the interface index of the owner's device. `uplink` is the name of the other device that the
    /// owner's routes use. The function also returns true after changes by the owner itself.
    pub fn wait(
        &self,
        device_index: Option<u32>,
        uplink: &str,
        timeout: Duration,
    ) -> Result<bool, SocketError> {
        let deadline = Instant::now() + timeout;
        loop {
            if self.read_notifications(device_index, uplink)? {
                return Ok(true);
            }
            let remaining_time = deadline.saturating_duration_since(Instant::now());
            if remaining_time.is_zero() {
                return Ok(false);
            }
            let poll_timeout =
                Timespec::try_from(remaining_time).map_err(|_| transport_error(Errno::INVAL))?;
            match poll(&mut [PollFd::new(&self.socket, PollFlags::IN)], Some(&poll_timeout)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(transport_error(errno)),
            }
        }
    }

    /// Reads all waiting notifications without blocking, and returns true if an object may have changed.
    pub fn read_notifications(&self, device_index: Option<u32>, uplink: &str) -> Result<bool, SocketError> {
        let mut is_changed = false;
        loop {
            let mut datagram = Vec::with_capacity(BUFFER_LENGTH);
            match self.socket.recv(&mut datagram, 0) {
                Ok(_) => {
                    let is_relevant =
                        |bytes: &[u8]| codec::is_relevant(bytes, &self.owner, device_index, uplink);
                    is_changed |= split_messages(&datagram).any(is_relevant);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(is_changed),
                Err(error) if error.raw_os_error() == Some(Errno::INTR.raw_os_error()) => {}
                // The kernel's buffer was full, so the kernel has discarded notifications.
                Err(error) if error.raw_os_error() == Some(Errno::NOBUFS.raw_os_error()) => is_changed = true,
                Err(error) => return Err(SocketError::TransportFailed(error)),
            }
        }
    }
}

impl AsFd for Monitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn transport_error(errno: Errno) -> SocketError {
    SocketError::TransportFailed(errno.into())
}

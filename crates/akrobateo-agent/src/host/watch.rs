//! Reports changes of interfaces and addresses. I/O only.

use std::os::fd::{AsFd, BorrowedFd};

use netfilter::netlink::{Protocol, Socket};

use super::error::HostError;

/// `RTNLGRP_LINK`, `RTNLGRP_IPV4_IFADDR` and `RTNLGRP_IPV6_IFADDR` (`linux/rtnetlink.h`) as a bit mask.
const MULTICAST_GROUPS: u32 = 1 | 1 << (5 - 1) | 1 << (9 - 1);

/// Receives the kernel's notifications in the network namespace of the thread that opened the watch.
///
/// To notice all changes, a caller must first open the watch, and then read the network.
#[derive(Debug)]
pub struct HostWatch(Socket);

impl HostWatch {
    /// Opens a watch.
    pub fn open() -> Result<Self, HostError> {
        Socket::listen(Protocol::Route, MULTICAST_GROUPS).map(Self).map_err(HostError::WatchFailed)
    }

    /// Reads the waiting notifications. Returns true if an interface or an address has changed.
    ///
    /// The function also returns true if an interface of a pod or of the agent itself has changed.
    pub fn has_changes(&self) -> Result<bool, HostError> {
        let mut has_notifications = false;
        let is_complete = self.0.receive_notifications(|_| has_notifications = true);
        // Discarded notifications count as a change.
        Ok(!is_complete.map_err(HostError::WatchFailed)? || has_notifications)
    }
}

impl AsFd for HostWatch {
    /// Returns the socket that becomes readable when an interface or an address changes.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

//! Reports changes of the data path by other programs. I/O only.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd};

use links::Monitor;
use netfilter::nft::watch::{ChangeFilter, Watch};

use super::error::DataPathError;
use crate::table::{inet_id, netdev_id};
use crate::tunnel;

/// Receives the kernel's notifications in the network namespace of the thread that opened the watch.
#[derive(Debug)]
pub struct DataPathWatch {
    tables: Watch,
    filter: ChangeFilter,
    tunnel: Monitor,
}

impl DataPathWatch {
    /// Opens a watch. `own_port_id` is the port ID of the socket that changes the tables.
    pub(super) fn open(own_port_id: u32) -> Result<Self, DataPathError> {
        Ok(Self {
            tables: Watch::open()?,
            filter: ChangeFilter {
                tables: BTreeSet::from([inet_id(), netdev_id()]),
                own_port_ids: BTreeSet::from([own_port_id]),
            },
            tunnel: Monitor::open(tunnel::owner()).map_err(DataPathError::Watch)?,
        })
    }

    /// Reads the waiting notifications. Returns true if another program may have changed the tables, the tunnel, routes or
    /// rules, or the uplink.
    ///
    /// Also returns true after this process has changed the tunnel. `device` is the last known interface index of the
    /// tunnel's device.
    pub fn has_changes(&self, device: Option<u32>, uplink: &str) -> Result<bool, DataPathError> {
        let tables = self.tables.receive(&self.filter)?;
        let tunnel = self.tunnel.read_notifications(device, uplink).map_err(DataPathError::Watch)?;
        Ok(!tables.is_empty() || tunnel)
    }

    /// Discards the waiting notifications of the tunnel.
    pub(super) fn skip_tunnel_changes(&self, device: Option<u32>, uplink: &str) -> Result<(), DataPathError> {
        self.tunnel.read_notifications(device, uplink).map(drop).map_err(DataPathError::Watch)
    }

    /// Returns the sockets that become readable when tables, interfaces, addresses, routes or rules change.
    #[must_use]
    pub fn sockets(&self) -> [BorrowedFd<'_>; 2] {
        [self.tables.as_fd(), self.tunnel.as_fd()]
    }
}

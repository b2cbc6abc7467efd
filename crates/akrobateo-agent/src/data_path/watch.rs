//! Reports changes of the data path by other programs. I/O only.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd};

use links::Monitor;
use netfilter::nft::watch::{ChangeFilter, Watch};

use super::error::DataPathError;
use crate::table::{inet_table_id, netdev_table_id};
use crate::tunnel;

/// Receives the kernel's notifications in the network namespace of the thread that opened the watch.
#[derive(Debug)]
pub struct DataPathWatch {
    table_watch: Watch,
    filter: ChangeFilter,
    tunnel_monitor: Monitor,
}

impl DataPathWatch {
    /// Opens a watch. `own_port_id` is the port ID of the socket that changes the tables.
    pub(super) fn open(own_port_id: u32) -> Result<Self, DataPathError> {
        Ok(Self {
            table_watch: Watch::open()?,
            filter: ChangeFilter {
                tables: BTreeSet::from([inet_table_id(), netdev_table_id()]),
                own_port_ids: BTreeSet::from([own_port_id]),
            },
            tunnel_monitor: Monitor::open(tunnel::owner()).map_err(DataPathError::Watch)?,
        })
    }

    /// Reads the waiting notifications. Returns true if another program may have changed the tables, the tunnel, the
    /// routes, the routing rules or the uplink.
    ///
    /// The function also returns true after this process has changed the tunnel. `tunnel_device_index` is the last
    /// known interface index of the tunnel's device.
    pub fn has_changes(&self, tunnel_device_index: Option<u32>, uplink: &str) -> Result<bool, DataPathError> {
        let table_changes = self.table_watch.receive(&self.filter)?;
        let tunnel_monitor = &self.tunnel_monitor;
        let has_tunnel_changes =
            tunnel_monitor.read_notifications(tunnel_device_index, uplink).map_err(DataPathError::Watch)?;
        Ok(!table_changes.is_empty() || has_tunnel_changes)
    }

    /// Discards the waiting notifications of the tunnel.
    pub(super) fn skip_tunnel_changes(
        &self,
        tunnel_device_index: Option<u32>,
        uplink: &str,
    ) -> Result<(), DataPathError> {
        let result = self.tunnel_monitor.read_notifications(tunnel_device_index, uplink);
        result.map(drop).map_err(DataPathError::Watch)
    }

    /// Returns the sockets that become readable when tables, interfaces, addresses, routes or rules change.
    #[must_use]
    pub fn sockets(&self) -> [BorrowedFd<'_>; 2] {
        [self.table_watch.as_fd(), self.tunnel_monitor.as_fd()]
    }
}

//! The data path in the kernel: applies a configuration, and removes everything again. Does I/O.

mod error;
mod flows;
mod former_elements;
mod installed;
mod leftovers;
mod port_counters;
mod stale;
mod stale_flow_search;
mod stale_state;
mod tunnel_failure;
mod watch;

use std::borrow::Cow;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use links::NetworkObjects;
use netfilter::conntrack::Conntrack;
use netfilter::netlink::NetlinkError;
use netfilter::nft::client::Nftables;
use netfilter::nft::model::TableId;
use netfilter::nft::{InstalledTable, Table, Transaction};
use rustix::net::netdevice::name_to_index;
use rustix::net::{AddressFamily, SocketType, socket};

pub use error::DataPathError;
use former_elements::FormerElements;
use installed::{InstalledTables, TableChange};
pub use port_counters::PortCounters;
use stale_flow_search::StaleFlowSearch;
use tunnel_failure::{TunnelFailure, TunnelResult};
pub use watch::DataPathWatch;

use crate::config::NodeConfig;
use crate::kernel_features::{self, KernelFeature, find_missing_feature};
use crate::routing;
use crate::table::{
    INTERIM_TABLE_NAME, NodeTables, TABLE_NAME, inet_table_id, leads_to_other_sets, table_ids,
};
use crate::tunnel;

/// The time for which the previous and the new table both handle packets, so that each packet passes one table
/// completely.
const TABLE_OVERLAP_TIME: Duration = Duration::from_millis(10);

/// The data path of the node in whose network namespace it was opened.
#[derive(Debug)]
pub struct DataPath {
    nftables: Nftables,
    conntrack: Conntrack,
    link_client: links::Client,
    /// A socket for look-ups of interface indexes.
    interface_socket: OwnedFd,
    /// The configuration whose tables are in the kernel. `None` before the first change, and after another program has
    /// changed the tables.
    installed_config: Option<NodeConfig>,
    /// The elements of former endpoints in the kernel's tables. The list is valid while `installed_config` is set.
    former_elements: Vec<FormerElements>,
    /// The time of the last search for connections to former endpoints.
    last_element_check_at: Option<Instant>,
    /// The last change of the tables; `None` after [`Self::delete_stale_affinities`] has ended the change.
    unfinished_change: Option<TableChange>,
    /// The stale flows of earlier changes; `None` if all stale flows were deleted.
    stale_flows: Option<StaleFlowSearch>,
    /// The tunnel, routes and rules that this process has installed. `None` in the same cases as `installed_config`.
    installed_objects: Option<NetworkObjects>,
    /// The last attempt to create the tunnel, if it failed.
    tunnel_failure: Option<TunnelFailure>,
    /// True if flows of earlier rules may exist that a comparison of the old and new tables does not find.
    may_have_leftover_flows: bool,
}

/// The changes that were made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// The number of steps of the nftables transactions.
    pub nftables_steps: usize,
    /// The number of changes of the tunnel, routes and rules.
    pub tunnel_changes: usize,
    /// The number of deleted conntrack entries.
    pub deleted_flows: usize,
    /// The number of deleted affinities.
    pub deleted_affinities: usize,
}

impl DataPath {
    /// Opens the data path in the network namespace of the calling thread.
    pub fn open() -> Result<Self, DataPathError> {
        Ok(Self {
            nftables: Nftables::open()?,
            conntrack: Conntrack::open().map_err(DataPathError::Conntrack)?,
            link_client: links::Client::open(tunnel::owner())?,
            interface_socket: socket(AddressFamily::INET, SocketType::DGRAM, None)
                .map_err(NetlinkError::OpenFailed)?,
            installed_config: None,
            former_elements: Vec::new(),
            last_element_check_at: None,
            unfinished_change: None,
            stale_flows: None,
            installed_objects: None,
            tunnel_failure: None,
            may_have_leftover_flows: true,
        })
    }

    /// Returns an error if the kernel lacks a feature that the data path needs.
    pub fn check_kernel(&self) -> Result<(), DataPathError> {
        let feature = find_missing_feature(|table| self.kernel_accepts(table))?;
        let Some(KernelFeature { name, linux_version, .. }) = feature else { return Ok(()) };
        Err(DataPathError::MissingFeature { name, linux_version })
    }

    /// Returns true if the kernel has the egress hook of nftables (Linux 5.16).
    pub fn has_egress_hook(&self) -> Result<bool, DataPathError> {
        let has_hook = self.kernel_accepts(&kernel_features::egress_hook_table())?;
        if !has_hook {
            tracing::info!(
                "the kernel has no egress hook (Linux 5.16): each peer needs its own routing rules"
            );
        }
        Ok(has_hook)
    }

    /// Returns true if the kernel accepts a table. Packets never pass this table.
    fn kernel_accepts(&self, table: &Table) -> Result<bool, DataPathError> {
        match self.nftables.check_support(table) {
            Ok(()) => Ok(true),
            Err(error) if error.may_be_unsupported() => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Applies the configuration to the kernel: calls [`Self::install`], and then [`Self::delete_stale_state`].
    pub fn apply(&mut self, config: &NodeConfig) -> Result<Changes, DataPathError> {
        let result = self.install(config);
        self.finish_change(result)
    }

    /// Changes the kernel's state like [`Self::apply`], but with the tables that `build_tables` returns.
    pub fn apply_tables(
        &mut self,
        config: &NodeConfig,
        build_tables: impl Fn(&NodeConfig) -> NodeTables,
    ) -> Result<Changes, DataPathError> {
        self.forget_installed_state();
        let result = self.install_tables(config, build_tables);
        // `installed_config` can describe only the tables of [`NodeTables::new`].
        self.forget_installed_state();
        self.finish_change(result)
    }

    /// Changes the tables and the tunnel so that new flows follow the configuration.
    ///
    /// If the kernel cannot create the tunnel, the clients of endpoints behind the tunnel are masqueraded, and
    /// [`Self::tunnel_error`] returns the reason.
    ///
    /// The caller must then call [`Self::delete_stale_state`]. The deletion is a separate step, because the search of a
    /// large conntrack table takes more time than the change of some rules.
    pub fn install(&mut self, config: &NodeConfig) -> Result<Changes, DataPathError> {
        self.install_tables(config, NodeTables::new)
    }

    fn install_tables(
        &mut self,
        config: &NodeConfig,
        build_tables: impl Fn(&NodeConfig) -> NodeTables,
    ) -> Result<Changes, DataPathError> {
        if config.node.addresses.is_empty() {
            return Err(DataPathError::NoAddress);
        }
        // New kernels accept an egress hook for an interface that does not exist, but they never run this hook.
        let uplink = name_to_index(&self.interface_socket, &config.node.uplink);
        if config.keeps_client_addresses() && uplink.is_err() {
            return Err(DataPathError::NoUplink(config.node.uplink.clone()));
        }
        let uplink = uplink.unwrap_or_default();
        let (mut changes, mut tunnel_error) = (Changes::default(), None);
        let mut config = Cow::Borrowed(config);
        let mut objects = routing::network_objects(&config, uplink);
        let has_objects = self.installed_objects.take().as_ref() == Some(&objects);
        // The tunnel is created before the tables, because the new tables need its device. The tunnel is deleted after
        // the tables, because the previous tables send packets to its device.
        if !has_objects && objects.device.is_some() {
            match self.create_tunnel(&objects)? {
                TunnelResult::Created(count) => changes.tunnel_changes = count,
                TunnelResult::Disturbed(error) => tunnel_error = Some(error),
                TunnelResult::Failed => {
                    config = Cow::Owned(config.without_tunnel());
                    objects = routing::network_objects(&config, uplink);
                }
            }
        }
        changes.nftables_steps = self.change_tables(&config, build_tables)?;
        if !has_objects && objects.device.is_none() {
            changes.tunnel_changes += self.link_client.reconcile(&objects)?;
        }
        self.installed_config = Some(config.into_owned());
        if let Some(error) = tunnel_error {
            return Err(error);
        }
        self.installed_objects = Some(objects);
        Ok(changes)
    }

    /// Changes the tables, and returns the number of steps.
    fn change_tables(
        &mut self,
        config: &NodeConfig,
        build_tables: impl Fn(&NodeConfig) -> NodeTables,
    ) -> Result<usize, DataPathError> {
        // If this change or the deletion of stale flows fails, the next comparison does not find all stale flows.
        let checks_leftovers = std::mem::replace(&mut self.may_have_leftover_flows, true);
        let mut interim_tables = InstalledTables::default();
        let old_elements = &self.former_elements;
        let mut change = match self.installed_config.take() {
            Some(old) if checks_leftovers => TableChange::between_complete_tables(&old, config, old_elements),
            Some(old) => TableChange::between(&old, config, old_elements),
            None => {
                interim_tables = self.read_tables(INTERIM_TABLE_NAME)?;
                TableChange::new(self.read_tables(TABLE_NAME)?, build_tables(config))
            }
        };
        change.checks_leftover_flows = checks_leftovers;
        let former_elements = FormerElements::find_all(change.installed_table(), &change.desired_tables.inet);
        for elements in &former_elements {
            elements.add_to(&mut change.desired_tables.inet);
        }
        let transaction = change.transaction();
        let mut step_count;
        if transaction.recreates_objects() {
            self.delete_tables(&interim_tables)?;
            step_count = self.replace_tables(&change.installed_tables, &change.desired_tables)?;
        } else {
            step_count = self.execute(transaction)?;
            // Interim tables are left over if an earlier process has not finished a replacement.
            if !interim_tables.is_empty() {
                std::thread::sleep(TABLE_OVERLAP_TIME);
                step_count += self.delete_tables(&interim_tables)?;
            }
        }
        self.former_elements = former_elements;
        self.unfinished_change = Some(change);
        Ok(step_count)
    }

    /// Creates or changes the tunnel.
    fn create_tunnel(&mut self, objects: &NetworkObjects) -> Result<TunnelResult, DataPathError> {
        let now = Instant::now();
        if self.tunnel_failure.as_ref().is_some_and(|failure| failure.applies_to(objects, now)) {
            return Ok(TunnelResult::Failed);
        }
        self.tunnel_failure = None;
        match self.link_client.reconcile(objects).map_err(DataPathError::from) {
            Ok(count) => Ok(TunnelResult::Created(count)),
            Err(DataPathError::NoNetAdmin) => Err(DataPathError::NoNetAdmin),
            Err(error) if self.link_client.observe()?.device.is_some_and(|device| device.is_up) => {
                Ok(TunnelResult::Disturbed(error))
            }
            Err(error) => {
                tracing::warn!(
                    %error, port = tunnel::TUNNEL_PORT,
                    "clients of endpoints behind the tunnel are masqueraded: the tunnel needs the kernel module vxlan, \
                     and no other program may use its UDP port"
                );
                self.tunnel_failure = Some(TunnelFailure::new(objects.clone(), error, now));
                Ok(TunnelResult::Failed)
            }
        }
    }

    /// Returns the reason why the kernel could not create the tunnel; `None` if the tunnel exists or is not needed.
    #[must_use]
    pub fn tunnel_error(&self) -> Option<&DataPathError> {
        self.tunnel_failure.as_ref().map(|failure| &failure.error)
    }

    /// Returns the time of the next attempt to create the tunnel; `None` if the last attempt has not failed.
    #[must_use]
    pub fn tunnel_retry_at(&self) -> Option<Instant> {
        self.tunnel_failure.as_ref().map(|failure| failure.retry_at)
    }

    /// Forgets the installed state. The next change reads the kernel's state first.
    pub fn forget_installed_state(&mut self) {
        self.installed_config = None;
        self.installed_objects = None;
    }

    /// Deletes everything that any agent has installed in this network namespace.
    pub fn cleanup(&mut self) -> Result<Changes, DataPathError> {
        self.forget_installed_state();
        let mut changes = Changes::default();
        for name in [TABLE_NAME, INTERIM_TABLE_NAME] {
            changes.nftables_steps += self.delete_tables(&self.read_tables(name)?)?;
        }
        changes.tunnel_changes = self.link_client.cleanup()?;
        Ok(changes)
    }

    /// Opens a watch that reports changes of the data path by other programs.
    pub fn open_watch(&self) -> Result<DataPathWatch, DataPathError> {
        DataPathWatch::open(self.nftables.port_id()?)
    }

    /// Returns the interface index of the tunnel's device; `None` if the device does not exist.
    pub fn tunnel_device_index(&mut self) -> Result<Option<u32>, DataPathError> {
        Ok(self.link_client.device_index()?)
    }

    /// Discards the notifications of this process's own changes of the tunnel. Returns false if another program has
    /// changed the tunnel meanwhile.
    pub fn skip_own_tunnel_changes(
        &mut self,
        watch: &DataPathWatch,
        uplink: &str,
    ) -> Result<bool, DataPathError> {
        watch.skip_tunnel_changes(self.link_client.device_index()?, uplink)?;
        let objects = self.link_client.observe()?;
        Ok(self.installed_objects.as_ref().is_some_and(|desired| links::diff(&objects, desired).is_empty()))
    }

    /// Returns the table of family inet in the kernel; `None` if the table does not exist.
    pub fn read_table(&self) -> Result<Option<InstalledTable>, DataPathError> {
        self.read_with_id(&inet_table_id())
    }

    fn read_tables(&self, name: &'static str) -> Result<InstalledTables, DataPathError> {
        let [inet, netdev] = table_ids(name);
        Ok(InstalledTables { inet: self.read_with_id(&inet)?, netdev: self.read_with_id(&netdev)? })
    }

    fn read_with_id(&self, id: &TableId) -> Result<Option<InstalledTable>, DataPathError> {
        Ok(self.nftables.read(id)?.1)
    }

    /// Replaces tables that the kernel cannot change in place. During the replacement, interim tables with the content
    /// of the new tables handle the packets.
    fn replace_tables(&self, old: &InstalledTables, desired: &NodeTables) -> Result<usize, DataPathError> {
        let no_tables = InstalledTables::default();
        let mut interim_tables = desired.clone().with_name(INTERIM_TABLE_NAME);
        self.copy_affinities(old, &mut interim_tables)?;
        let mut step_count = self.execute(no_tables.diff(&interim_tables))?;
        std::thread::sleep(TABLE_OVERLAP_TIME);
        step_count += self.delete_tables(old)?;
        let interim_tables = InstalledTables::from(interim_tables);
        let mut desired = desired.clone();
        self.copy_affinities(&interim_tables, &mut desired)?;
        step_count += self.execute(no_tables.diff(&desired))?;
        std::thread::sleep(TABLE_OVERLAP_TIME);
        Ok(step_count + self.delete_tables(&interim_tables)?)
    }

    /// Copies the clients' affinities of each set that both tables define in the same way.
    fn copy_affinities(&self, from: &InstalledTables, to: &mut NodeTables) -> Result<(), DataPathError> {
        let Some(from) = &from.inet else { return Ok(()) };
        for set in to.inet.sets.iter_mut().filter(|set| set.definition.dynamic.is_some()) {
            if from.table.set(&set.name).is_some_and(|old| old.definition == set.definition) {
                set.elements = self.nftables.read_elements(&from.table.id, set)?.unwrap_or_default();
            }
        }
        Ok(())
    }

    /// Deletes tables, and returns the number of steps.
    fn delete_tables(&self, installed: &InstalledTables) -> Result<usize, DataPathError> {
        self.execute(installed.deletion_transaction())
    }

    /// Executes a transaction in stages, and returns the number of its steps.
    fn execute(&self, transaction: Transaction<'_>) -> Result<usize, DataPathError> {
        let step_count = transaction.steps.len();
        let stages = transaction.into_stages(leads_to_other_sets);
        for stage in [stages.additions, stages.changes, stages.deletions] {
            self.nftables.execute(&stage)?;
        }
        Ok(step_count)
    }
}

//! The data path in the kernel: applies a configuration, and removes everything again. Does I/O.

mod error;
mod flows;
mod former_elements;
mod installed;
mod leftovers;
mod stale;
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
use installed::{Installed, TableChange};
use tunnel_failure::{TunnelFailure, TunnelResult};
pub use watch::DataPathWatch;

use crate::config::NodeConfig;
use crate::kernel_features::{self, KernelFeature, find_missing_feature};
use crate::routing;
use crate::table::{INTERIM_NAME, NAME, NodeTables, inet_id, leads_to_other_sets, table_ids};
use crate::tunnel;

/// The time for which two tables handle packets, so that each packet passes one of them completely.
const OVERLAP: Duration = Duration::from_millis(10);

/// The data path of the node in whose network namespace it was opened.
#[derive(Debug)]
pub struct DataPath {
    nftables: Nftables,
    conntrack: Conntrack,
    links: links::Client,
    /// A socket that finds the interfaces of the network namespace.
    interfaces: OwnedFd,
    /// The configuration whose tables are in the kernel; `None` before the first change, and after a change by others.
    installed: Option<NodeConfig>,
    /// The elements of former endpoints that are in the kernel, too. They are only valid together with `installed`.
    former: Vec<FormerElements>,
    /// The last change, until [`Self::delete_stale`] has deleted what it has left behind.
    unfinished_change: Option<TableChange>,
    /// The tunnel, routes and rules that this process has installed; `None` like `installed`.
    objects: Option<NetworkObjects>,
    /// The last attempt to create the tunnel, if it failed.
    tunnel_failure: Option<TunnelFailure>,
    /// True if flows of earlier rules may remain that the next change of the tables does not show.
    may_have_leftovers: bool,
}

/// The changes that were made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// The steps of the nftables transaction.
    pub steps: usize,
    /// The changes of the tunnel, routes and rules.
    pub tunnel: usize,
    /// The deleted conntrack entries.
    pub flows: usize,
    /// The deleted affinities.
    pub affinities: usize,
}

impl DataPath {
    /// Opens the data path in the network namespace of the calling thread.
    pub fn open() -> Result<Self, DataPathError> {
        Ok(Self {
            nftables: Nftables::open()?,
            conntrack: Conntrack::open().map_err(DataPathError::Conntrack)?,
            links: links::Client::open(tunnel::owner())?,
            interfaces: socket(AddressFamily::INET, SocketType::DGRAM, None)
                .map_err(NetlinkError::OpenFailed)?,
            installed: None,
            former: Vec::new(),
            unfinished_change: None,
            objects: None,
            tunnel_failure: None,
            may_have_leftovers: true,
        })
    }

    /// Returns an error if the kernel lacks a feature without which the data path does not work.
    pub fn check_kernel(&self) -> Result<(), DataPathError> {
        match find_missing_feature(|table| self.accepts(table))? {
            None => Ok(()),
            Some(KernelFeature { name, version, .. }) => Err(DataPathError::MissingFeature { name, version }),
        }
    }

    /// Returns true if the kernel has the egress hook of nftables (Linux 5.16).
    pub fn has_egress_hook(&self) -> Result<bool, DataPathError> {
        let has_hook = self.accepts(&kernel_features::egress_hook())?;
        if !has_hook {
            tracing::info!(
                "the kernel has no egress hook (Linux 5.16): each peer needs its own routing rules"
            );
        }
        Ok(has_hook)
    }

    /// Returns true if the kernel accepts a table. No packet passes the table.
    fn accepts(&self, table: &Table) -> Result<bool, DataPathError> {
        match self.nftables.probe(table) {
            Ok(()) => Ok(true),
            Err(error) if error.is_unsupported() => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Changes the kernel's state to that of the configuration: [`Self::install`], and then [`Self::delete_stale`].
    pub fn apply(&mut self, config: &NodeConfig) -> Result<Changes, DataPathError> {
        let result = self.install(config);
        self.finish(result)
    }

    /// Changes the kernel's state to that of the configuration, but with tables of another layout.
    pub fn apply_tables(
        &mut self,
        config: &NodeConfig,
        build_tables: impl Fn(&NodeConfig) -> NodeTables,
    ) -> Result<Changes, DataPathError> {
        self.forget_installed();
        let result = self.install_tables(config, build_tables);
        // No configuration has these tables.
        self.forget_installed();
        self.finish(result)
    }

    /// Changes the tables and the tunnel to those of the configuration. Then new flows follow the configuration.
    ///
    /// If the kernel cannot create the tunnel, the clients of endpoints behind the tunnel are masqueraded. See
    /// [`Self::tunnel_error`]. The caller also calls [`Self::delete_stale`]. It is a step of its own, because the kernel
    /// needs more time to search a large conntrack table than to change some rules.
    pub fn install(&mut self, config: &NodeConfig) -> Result<Changes, DataPathError> {
        self.install_tables(config, NodeTables::new)
    }

    /// Deletes what earlier calls of [`Self::install`] have left behind: conntrack entries, affinities and elements of
    /// former endpoints. Returns the numbers of entries and affinities. After an error, it is repeated after the next
    /// change.
    pub fn delete_stale(&mut self) -> Result<(usize, usize), DataPathError> {
        let Some(change) = self.unfinished_change.take() else { return Ok((0, 0)) };
        let result = self.delete_stale_after(&change);
        match result {
            Ok(_) => self.may_have_leftovers = false,
            Err(_) => self.installed = None,
        }
        result
    }

    fn delete_stale_after(&mut self, change: &TableChange) -> Result<(usize, usize), DataPathError> {
        // A client whose entry is deleted chooses an endpoint again. It must not find its affinity then.
        let affinity_count = flows::delete_stale_affinities(&self.nftables, change)?;
        let flow_count = flows::delete_stale(&self.conntrack, change)?;
        flows::delete_unused(&self.conntrack, &self.nftables, &mut self.former, &change.desired)?;
        Ok((flow_count, affinity_count))
    }

    fn finish(&mut self, result: Result<Changes, DataPathError>) -> Result<Changes, DataPathError> {
        let deleted = self.delete_stale();
        let changes = result?;
        let (flows, affinities) = deleted?;
        Ok(Changes { flows, affinities, ..changes })
    }

    fn install_tables(
        &mut self,
        config: &NodeConfig,
        build_tables: impl Fn(&NodeConfig) -> NodeTables,
    ) -> Result<Changes, DataPathError> {
        if config.node.addresses.is_empty() {
            return Err(DataPathError::NoAddress);
        }
        // New kernels accept a hook of a missing interface, and would never run it.
        let uplink = name_to_index(&self.interfaces, &config.node.uplink);
        if config.keeps_client_addresses() && uplink.is_err() {
            return Err(DataPathError::NoUplink(config.node.uplink.clone()));
        }
        let uplink = uplink.unwrap_or_default();
        let (mut changes, mut tunnel_error) = (Changes::default(), None);
        let mut config = Cow::Borrowed(config);
        let mut objects = routing::network_objects(&config, uplink);
        let has_objects = self.objects.take().as_ref() == Some(&objects);
        // The tables need the tunnel's device. Packets enter the device until the tables have changed.
        if !has_objects && objects.device.is_some() {
            match self.create_tunnel(&objects)? {
                TunnelResult::Created(count) => changes.tunnel = count,
                TunnelResult::Disturbed(error) => tunnel_error = Some(error),
                TunnelResult::Failed => {
                    config = Cow::Owned(config.without_tunnel());
                    objects = routing::network_objects(&config, uplink);
                }
            }
        }
        changes.steps = self.change_tables(&config, build_tables)?;
        if !has_objects && objects.device.is_none() {
            changes.tunnel += self.links.reconcile(&objects)?;
        }
        self.installed = Some(config.into_owned());
        if let Some(error) = tunnel_error {
            return Err(error);
        }
        self.objects = Some(objects);
        Ok(changes)
    }

    /// Changes the tables, and returns the number of steps.
    fn change_tables(
        &mut self,
        config: &NodeConfig,
        build_tables: impl Fn(&NodeConfig) -> NodeTables,
    ) -> Result<usize, DataPathError> {
        // If this or the deletion of stale flows fails, the next change does not show all flows of earlier rules.
        let checks_leftovers = std::mem::replace(&mut self.may_have_leftovers, true);
        let (mut change, interim) = match self.installed.take() {
            Some(installed) if checks_leftovers => {
                (TableChange::of_all(&installed, config, &self.former), Installed::default())
            }
            Some(installed) => (TableChange::between(&installed, config, &self.former), Installed::default()),
            None => (TableChange::new(self.read(NAME)?, build_tables(config)), self.read(INTERIM_NAME)?),
        };
        change.checks_leftovers = checks_leftovers;
        let former = FormerElements::find_all(change.installed_table(), &change.desired.inet);
        for former in &former {
            former.add_to(&mut change.desired.inet);
        }
        let transaction = change.transaction();
        let mut step_count;
        if transaction.recreates_objects() {
            self.delete(&interim)?;
            step_count = self.replace(&change.installed, &change.desired)?;
        } else {
            step_count = self.execute(transaction)?;
            // An earlier process has not finished a replacement.
            if !interim.is_empty() {
                std::thread::sleep(OVERLAP);
                step_count += self.delete(&interim)?;
            }
        }
        self.former = former;
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
        match self.links.reconcile(objects).map_err(DataPathError::from) {
            Ok(count) => Ok(TunnelResult::Created(count)),
            Err(DataPathError::NoNetAdmin) => Err(DataPathError::NoNetAdmin),
            Err(error) if self.links.observe()?.device.is_some_and(|device| device.is_up) => {
                Ok(TunnelResult::Disturbed(error))
            }
            Err(error) => {
                tracing::warn!(
                    %error, port = tunnel::PORT,
                    "clients of endpoints behind the tunnel are masqueraded: the tunnel needs the kernel module vxlan, \
                     and no other program may use its UDP port"
                );
                self.tunnel_failure = Some(TunnelFailure::new(objects.clone(), error, now));
                Ok(TunnelResult::Failed)
            }
        }
    }

    /// Returns the reason why the kernel could not create the tunnel; `None` if it could, or if no tunnel is needed.
    #[must_use]
    pub fn tunnel_error(&self) -> Option<&DataPathError> {
        self.tunnel_failure.as_ref().map(|failure| &failure.error)
    }

    /// Returns the time at which the next change tries again to create the tunnel.
    #[must_use]
    pub fn tunnel_retry_at(&self) -> Option<Instant> {
        self.tunnel_failure.as_ref().map(|failure| failure.retry_at)
    }

    /// Forgets what this process has installed. The next change reads the kernel's state first.
    pub fn forget_installed(&mut self) {
        self.installed = None;
        self.objects = None;
    }

    /// Deletes everything that any agent has installed in this network namespace.
    pub fn cleanup(&mut self) -> Result<Changes, DataPathError> {
        self.forget_installed();
        let mut changes = Changes::default();
        for name in [NAME, INTERIM_NAME] {
            changes.steps += self.delete(&self.read(name)?)?;
        }
        changes.tunnel = self.links.cleanup()?;
        Ok(changes)
    }

    /// Opens a watch that reports changes of the data path by other programs.
    pub fn open_watch(&self) -> Result<DataPathWatch, DataPathError> {
        DataPathWatch::open(self.nftables.port_id()?)
    }

    /// Returns the number of the tunnel's device; `None` if there is none.
    pub fn tunnel_device(&mut self) -> Result<Option<u32>, DataPathError> {
        Ok(self.links.device_index()?)
    }

    /// Discards the kernel's reports of this process's changes of the tunnel. Returns false if the tunnel is not the one
    /// that this process has installed, because another program has changed it meanwhile.
    pub fn skip_own_tunnel_changes(
        &mut self,
        watch: &DataPathWatch,
        uplink: &str,
    ) -> Result<bool, DataPathError> {
        watch.skip_tunnel_changes(self.links.device_index()?, uplink)?;
        let observed = self.links.observe()?;
        Ok(self.objects.as_ref().is_some_and(|desired| links::diff(&observed, desired).is_empty()))
    }

    /// Returns the table of family inet in the kernel; `None` if there is none.
    pub fn read_table(&self) -> Result<Option<InstalledTable>, DataPathError> {
        self.read_one(&inet_id())
    }

    fn read(&self, name: &'static str) -> Result<Installed, DataPathError> {
        let [inet, netdev] = table_ids(name);
        Ok(Installed { inet: self.read_one(&inet)?, netdev: self.read_one(&netdev)? })
    }

    fn read_one(&self, id: &TableId) -> Result<Option<InstalledTable>, DataPathError> {
        Ok(self.nftables.read(id)?.1)
    }

    /// Replaces the tables by others of another layout. Meanwhile, interim tables do the same as the new ones.
    fn replace(&self, installed: &Installed, desired: &NodeTables) -> Result<usize, DataPathError> {
        let nothing = Installed::default();
        let mut interim = desired.clone().with_name(INTERIM_NAME);
        self.copy_affinities(installed, &mut interim)?;
        let mut step_count = self.execute(nothing.diff(&interim))?;
        std::thread::sleep(OVERLAP);
        step_count += self.delete(installed)?;
        let interim = Installed::from(interim);
        let mut desired = desired.clone();
        self.copy_affinities(&interim, &mut desired)?;
        step_count += self.execute(nothing.diff(&desired))?;
        std::thread::sleep(OVERLAP);
        Ok(step_count + self.delete(&interim)?)
    }

    /// Copies the affinities of clients, as far as both tables store them in the same form.
    fn copy_affinities(&self, from: &Installed, to: &mut NodeTables) -> Result<(), DataPathError> {
        let Some(from) = &from.inet else { return Ok(()) };
        for set in to.inet.sets.iter_mut().filter(|set| set.definition.dynamic.is_some()) {
            if from.table.set(&set.name).is_some_and(|old| old.definition == set.definition) {
                set.elements = self.nftables.read_elements(&from.table.id, set)?.unwrap_or_default();
            }
        }
        Ok(())
    }

    /// Deletes tables, and returns the number of steps.
    fn delete(&self, installed: &Installed) -> Result<usize, DataPathError> {
        self.execute(installed.deletion())
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

//! The data path in the kernel: applies a configuration, and removes everything again. Does I/O.

mod error;
mod installed;
mod stale;
mod watch;

use std::os::fd::OwnedFd;
use std::time::Duration;

use akrobateo_core::Family;
use links::NetworkObjects;
use netfilter::conntrack::{Conntrack, Entry};
use netfilter::netlink::NetlinkError;
use netfilter::nft::client::Nftables;
use netfilter::nft::model::{Set, TableId};
use netfilter::nft::{InstalledTable, Table, Transaction};
use rustix::net::netdevice::name_to_index;
use rustix::net::{AddressFamily, SocketType, socket};

pub use error::DataPathError;
use installed::Installed;
use stale::StaleFlows;
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
    /// The tables that this process has installed; `None` before the first change, and after a change by others.
    installed: Option<Installed>,
    /// The tunnel, routes and rules that this process has installed; `None` like `installed`.
    objects: Option<NetworkObjects>,
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
            objects: None,
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

    /// Changes the kernel's state to that of the configuration.
    pub fn apply(&mut self, config: &NodeConfig) -> Result<Changes, DataPathError> {
        self.apply_tables(config, NodeTables::new(config))
    }

    /// Changes the kernel's state to that of the configuration, but with tables of another layout.
    pub fn apply_tables(
        &mut self,
        config: &NodeConfig,
        desired: NodeTables,
    ) -> Result<Changes, DataPathError> {
        if config.node.addresses.is_empty() {
            return Err(DataPathError::NoAddress);
        }
        // New kernels accept a hook of a missing interface, and would never run it.
        let uplink = name_to_index(&self.interfaces, &config.node.uplink);
        if config.keeps_client_addresses() && uplink.is_err() {
            return Err(DataPathError::NoUplink(config.node.uplink.clone()));
        }
        let mut changes = Changes::default();
        let objects = routing::network_objects(config, uplink.unwrap_or_default());
        let has_objects = self.objects.take().as_ref() == Some(&objects);
        // The tables need the tunnel's device. Packets enter the device until the tables have changed.
        let has_device = objects.device.is_some();
        if !has_objects && has_device {
            changes.tunnel = self.links.reconcile(&objects)?;
        }
        let (installed, interim) = match self.installed.take() {
            Some(installed) => (installed, Installed::default()),
            None => (self.read(NAME)?, self.read(INTERIM_NAME)?),
        };
        let change = installed.diff(&desired);
        if change.recreates_objects() {
            self.delete(&interim)?;
            changes.steps = self.replace(&installed, &desired)?;
        } else {
            changes.steps = self.execute(change)?;
            // An earlier process has not finished a replacement.
            if !interim.is_empty() {
                std::thread::sleep(OVERLAP);
                changes.steps += self.delete(&interim)?;
            }
        }
        if !has_objects && !has_device {
            changes.tunnel = self.links.reconcile(&objects)?;
        }
        (changes.flows, changes.affinities) = self.delete_stale(installed.inet.as_ref(), &desired)?;
        self.installed = Some(desired.into());
        self.objects = Some(objects);
        Ok(changes)
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

    /// Deletes conntrack entries and affinities of endpoints that are gone. Returns their numbers.
    fn delete_stale(
        &self,
        installed: Option<&InstalledTable>,
        desired: &NodeTables,
    ) -> Result<(usize, usize), DataPathError> {
        let (mut flows, mut affinities) = (0, 0);
        for family in Family::ALL {
            let stale_flows = StaleFlows::find(family, installed.map(|it| &it.table), &desired.inet);
            if let Some(filter) = stale_flows.filter(family) {
                let deleted =
                    self.conntrack.delete_entries_if(&filter, |entry: &Entry| stale_flows.contains(entry));
                flows += deleted.map_err(DataPathError::Conntrack)?;
            }
            let suffix = if family == Family::V4 { '4' } else { '6' };
            let is_affinity_set = |set: &&Set| set.definition.dynamic.is_some() && set.name.ends_with(suffix);
            let affinity_sets: Vec<_> = desired.inet.sets.iter().filter(is_affinity_set).collect();
            let has_equal_endpoints = installed
                .is_some_and(|installed| stale::has_equal_endpoints(family, &installed.table, &desired.inet));
            if affinity_sets.is_empty() || has_equal_endpoints {
                continue;
            }
            let endpoints = stale::endpoints(family, &desired.inet);
            for set in affinity_sets {
                let is_stale = |element: &_| stale::is_stale_affinity(family, element, &endpoints);
                affinities += self.nftables.delete_dynamic_elements(&desired.inet.id, set, is_stale)?;
            }
        }
        Ok((flows, affinities))
    }
}

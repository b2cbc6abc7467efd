//! The data path in the kernel: applies a configuration, and removes everything again. Does I/O.

mod error;
mod stale;
mod watch;

use akrobateo_core::Family;
use links::NetworkObjects;
use netfilter::conntrack::Conntrack;
use netfilter::netlink::NetlinkError;
use netfilter::nft::client::Nftables;
use netfilter::nft::model::{Chain, ChainType, Hook, TableFamily, TableId};
use netfilter::nft::{InstalledTable, NftError, Table, Transaction, diff};

use rustix::net::netdevice::name_to_index;
use rustix::net::{AddressFamily, SocketType, socket};

pub use error::DataPathError;
pub use watch::DataPathWatch;

use crate::config::NodeConfig;
use crate::table::{NodeTables, inet_id, netdev_id};
use crate::tunnel::{self, Tunnel};

/// The data path of the node in whose network namespace it was opened.
#[derive(Debug)]
pub struct DataPath {
    nftables: Nftables,
    conntrack: Conntrack,
    links: links::Client,
    /// The state that this process has installed. `None` before the first change, and after a change by another
    /// program.
    installed: Option<Installed>,
}

/// The state of the kernel.
#[derive(Debug, Default)]
struct Installed {
    inet: Option<InstalledTable>,
    netdev: Option<InstalledTable>,
    /// The objects of the tunnel; `None` if they are unknown.
    tunnel: Option<NetworkObjects>,
}

/// The numbers of changes that were made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// The number of steps in the nftables transaction.
    pub steps: usize,
    /// The number of changes of the tunnel.
    pub tunnel: usize,
    /// The number of deleted conntrack entries.
    pub flows: usize,
    /// The number of deleted affinities.
    pub affinities: usize,
}

impl DataPath {
    /// Opens the data path in the network namespace of the calling thread.
    pub fn open() -> Result<Self, DataPathError> {
        Ok(Self {
            nftables: Nftables::open()?,
            conntrack: Conntrack::open().map_err(DataPathError::Conntrack)?,
            links: links::Client::open(tunnel::owner())?,
            installed: None,
        })
    }

    /// Returns true if the kernel has the egress hook of nftables (Linux 5.16).
    pub fn has_egress_hook(&self) -> Result<bool, DataPathError> {
        let hook = Hook::Egress(vec!["lo".into()]);
        let id = TableId::new(TableFamily::Netdev, format!("{}-probe", crate::table::NAME));
        let chain = Chain::base("egress", ChainType::Filter, hook, 0, Vec::new());
        let table = Table { chains: vec![chain], ..Table::empty(id) };
        match self.nftables.probe(&table) {
            Ok(()) => Ok(true),
            Err(NftError::MissingFeature(feature)) => {
                tracing::warn!(%feature, "clients of endpoints on other nodes are masqueraded: the kernel lacks a feature");
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Changes the kernel's state to that of the configuration.
    pub fn apply(&mut self, config: &NodeConfig) -> Result<Changes, DataPathError> {
        if config.node.addresses.is_empty() {
            return Err(DataPathError::NoAddress);
        }
        let desired = NodeTables::new(config);
        // New kernels accept a hook on a missing interface, but never run the hook.
        if desired.netdev.is_some() && !interface_exists(&config.node.uplink)? {
            return Err(DataPathError::NoUplink(config.node.uplink.clone()));
        }
        let tunnel = desired.netdev.as_ref().and_then(|_| Tunnel::new(config));
        let tunnel = tunnel.map(|tunnel| tunnel.network_objects()).unwrap_or_default();
        let mut changes = Changes::default();
        let installed = match self.installed.take() {
            Some(installed) => installed,
            None => self.read()?,
        };
        let has_tunnel = installed.tunnel.as_ref() == Some(&tunnel);
        // The tunnel's device must exist first, because the table of family netdev has a hook on it.
        if !has_tunnel && tunnel.device.is_some() {
            changes.tunnel = self.links.reconcile(&tunnel)?;
        }
        let netdev_id = netdev_id();
        let netdev = match (&installed.netdev, &desired.netdev) {
            (installed, Some(desired)) => diff(installed.as_ref(), desired),
            (Some(_), None) => Transaction::delete(&netdev_id),
            (None, None) => Transaction::default(),
        };
        let transaction = diff(installed.inet.as_ref(), &desired.inet).then(netdev);
        changes.steps = transaction.steps.len();
        self.nftables.execute(&transaction)?;
        if !has_tunnel && tunnel.device.is_none() {
            changes.tunnel = self.links.cleanup()?;
        }
        (changes.flows, changes.affinities) = self.delete_stale(installed.inet.as_ref(), &desired)?;
        self.installed = Some(Installed {
            inet: Some(desired.inet.into()),
            netdev: desired.netdev.map(Into::into),
            tunnel: Some(tunnel),
        });
        Ok(changes)
    }

    /// Forgets what this process has installed. The next change reads the kernel's state first.
    pub fn forget_installed(&mut self) {
        self.installed = None;
    }

    /// Deletes everything that any agent has installed in this network namespace.
    pub fn cleanup(&mut self) -> Result<Changes, DataPathError> {
        let installed = self.read()?;
        self.installed = None;
        let (inet, netdev) = (inet_id(), netdev_id());
        let mut transaction = Transaction::default();
        for (id, table) in [(&inet, &installed.inet), (&netdev, &installed.netdev)] {
            if table.is_some() {
                transaction = transaction.then(Transaction::delete(id));
            }
        }
        self.nftables.execute(&transaction)?;
        let tunnel = self.links.cleanup()?;
        Ok(Changes { steps: transaction.steps.len(), tunnel, ..Changes::default() })
    }

    /// Opens a watch that reports changes of the data path by other programs.
    pub fn open_watch(&self) -> Result<DataPathWatch, DataPathError> {
        DataPathWatch::open(self.nftables.port_id()?)
    }

    /// Returns the interface index of the tunnel's device; `None` if the device does not exist.
    pub fn tunnel_device(&mut self) -> Result<Option<u32>, DataPathError> {
        Ok(self.links.device_index()?)
    }

    /// Returns the table of family inet in the kernel; `None` if the kernel has no such table.
    pub fn read_table(&self) -> Result<Option<InstalledTable>, DataPathError> {
        self.read_one(&inet_id())
    }

    fn read(&self) -> Result<Installed, DataPathError> {
        Ok(Installed { inet: self.read_table()?, netdev: self.read_one(&netdev_id())?, tunnel: None })
    }

    fn read_one(&self, id: &TableId) -> Result<Option<InstalledTable>, DataPathError> {
        Ok(self.nftables.read(id)?.1)
    }

    /// Deletes the conntrack entries and affinities that disagree with the desired tables. Returns the numbers of both.
    fn delete_stale(
        &self,
        installed: Option<&InstalledTable>,
        desired: &NodeTables,
    ) -> Result<(usize, usize), DataPathError> {
        let (mut flows, mut affinities) = (0, 0);
        for filter in stale::stale_entries(installed.map(|it| &it.table), &desired.inet) {
            flows += self.conntrack.delete_entries(&filter).map_err(DataPathError::Conntrack)?;
        }
        for family in Family::ALL {
            let endpoints = stale::endpoints(family, &desired.inet);
            if installed.is_some_and(|it| stale::endpoints(family, &it.table) == endpoints) {
                continue;
            }
            for set in desired.inet.sets.iter().filter(|set| set.definition.dynamic.is_some()) {
                if set.name.ends_with(if family == Family::V4 { '4' } else { '6' }) {
                    let is_stale = |element: &_| stale::is_stale_affinity(family, element, &endpoints);
                    affinities += self.nftables.delete_dynamic_elements(&desired.inet.id, set, is_stale)?;
                }
            }
        }
        Ok((flows, affinities))
    }
}

/// Returns true if the network namespace of the calling thread has an interface of this name.
fn interface_exists(name: &str) -> Result<bool, DataPathError> {
    let socket = socket(AddressFamily::INET, SocketType::DGRAM, None).map_err(NetlinkError::OpenFailed);
    let socket = socket.map_err(|error| DataPathError::Nftables(error.into()))?;
    Ok(name_to_index(&socket, name).is_ok())
}

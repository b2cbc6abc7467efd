//! The kernel of the node, as the running agent uses it: the node's network, and the data path. Does I/O.

use std::net::IpAddr;

use netfilter::nft::InstalledTable;

use super::kernel_metrics::KernelReader;
use crate::agent::{Agent, Observer};
use crate::config::NodeConfig;
use crate::data_path::{DataPath, DataPathError};
use crate::host::{self, ConntrackUse, HostError, HostNetwork, HostWatch};
use crate::listeners::{self, Listeners, ListenersError};

/// The kernel of a node. [`LocalKernel`] is the kernel on which the process runs. The scale test replaces the kernel,
/// because many agents in one process cannot share one kernel.
pub trait NodeKernel: Send + Sync {
    /// Opens a reader of the counters of ports and of conntrack; `None` if the kernel has no such counters.
    fn open_counters(&self) -> Result<Option<KernelReader>, DataPathError>;
    /// Opens a watch of the node's network; `None` if the network never changes.
    fn watch_network(&self) -> Result<Option<HostWatch>, HostError>;
    /// Reads the network of the node. `node_addresses` are the addresses in the Node's status.
    fn read_network(&self, node_addresses: &[IpAddr]) -> Result<HostNetwork, HostError>;
    /// Reads the listening sockets of the node.
    fn read_listeners(&self) -> Result<Listeners, ListenersError>;
    /// Reads the use of the conntrack table.
    fn read_conntrack_use(&self) -> Result<ConntrackUse, HostError>;
    /// Reads the table of an earlier process of the agent; `None` if the table does not exist.
    fn read_table(&self) -> Result<Option<InstalledTable>, DataPathError>;
    /// Starts the data path with a configuration. The observer receives the state of the data path.
    fn start_data_path(
        &self,
        id: u64,
        config: NodeConfig,
        observer: Box<dyn Observer>,
    ) -> Result<Box<dyn RunningDataPath>, DataPathError>;
    /// Removes the data path.
    fn remove_data_path(&self) -> Result<(), DataPathError>;
}

/// A running data path. When the value is dropped, the data path stops, and its rules remain in the kernel.
pub trait RunningDataPath {
    /// Replaces the configuration.
    fn set_config(&self, id: u64, config: NodeConfig);
}

impl RunningDataPath for Agent {
    fn set_config(&self, id: u64, config: NodeConfig) {
        Self::set_config(self, id, config);
    }
}

/// The kernel on which this process runs. Each call acts on the network namespace of the calling thread.
#[derive(Clone, Copy, Debug)]
pub struct LocalKernel;

impl NodeKernel for LocalKernel {
    fn open_counters(&self) -> Result<Option<KernelReader>, DataPathError> {
        KernelReader::open().map(Some)
    }

    fn watch_network(&self) -> Result<Option<HostWatch>, HostError> {
        HostWatch::open().map(Some)
    }

    fn read_network(&self, node_addresses: &[IpAddr]) -> Result<HostNetwork, HostError> {
        host::read(node_addresses)
    }

    fn read_listeners(&self) -> Result<Listeners, ListenersError> {
        listeners::read()
    }

    fn read_conntrack_use(&self) -> Result<ConntrackUse, HostError> {
        ConntrackUse::read()
    }

    fn read_table(&self) -> Result<Option<InstalledTable>, DataPathError> {
        DataPath::open()?.read_table()
    }

    fn start_data_path(
        &self,
        id: u64,
        config: NodeConfig,
        observer: Box<dyn Observer>,
    ) -> Result<Box<dyn RunningDataPath>, DataPathError> {
        Ok(Box::new(Agent::start(id, config, observer)?))
    }

    fn remove_data_path(&self) -> Result<(), DataPathError> {
        DataPath::open()?.cleanup().map(drop)
    }
}

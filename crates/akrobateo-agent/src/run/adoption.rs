//! Adopts the rules of an earlier process of the agent at the start, before the API server answers. Does I/O.

use std::collections::{BTreeMap, BTreeSet};

use akrobateo_core::{Family, Frontend};
use netfilter::nft::InstalledTable;
use tokio::sync::mpsc::UnboundedSender;

use super::metrics::Metrics;
use super::node_kernel::{NodeKernel, RunningDataPath};
use super::observer::{DataPathEvent, EventSender};
use super::state_file::StateFile;
use crate::config::Service;
use crate::data_path::DataPathError;
use crate::plan::InstalledServices;
use crate::table::family_set;
use crate::table::keys::parse_service;

/// The ID of the adopted configuration. The configurations of plans have higher IDs.
const ADOPTED_CONFIG_ID: u64 = 0;

/// The state of the data path at the start of the process.
#[derive(Default)]
pub(super) struct Adoption {
    /// The Services that the earlier process has served.
    pub(super) installed: InstalledServices,
    /// The thread that maintains the rules of the earlier process; `None` if the kernel has no rules, or if their
    /// configuration is not known.
    pub(super) thread: Option<Box<dyn RunningDataPath>>,
}

/// Reads the rules in the kernel. If the configuration of the rules is known, starts a thread that restores deleted
/// objects and answers the probes of peers.
///
/// Without rules in the kernel the saved configuration is not used, because a node that was restarted starts without
/// Services.
pub(super) fn adopt(
    kernel: &dyn NodeKernel,
    state_file: &StateFile,
    events: &UnboundedSender<DataPathEvent>,
    metrics: &Metrics,
) -> Result<Adoption, DataPathError> {
    let Some(installed) = kernel.read_table()? else { return Ok(Adoption::default()) };
    let frontends = installed_frontends(&installed);
    let mut installed = InstalledServices { frontends, services: BTreeMap::new() };
    let Some(config) = state_file.load() else { return Ok(Adoption { installed, thread: None }) };
    // Another program may have deleted some of the rules.
    installed.frontends.extend(config.services.iter().flat_map(Service::frontends));
    installed.services =
        config.services.iter().map(|service| (service.name.clone(), service.clone())).collect();
    tracing::info!(services = config.services.len(), "continuing with the last configuration of the node");
    metrics.set_services(&config);
    metrics.set_endpoints(&config);
    let thread = kernel.start_data_path(ADOPTED_CONFIG_ID, config, Box::new(EventSender(events.clone())))?;
    Ok(Adoption { installed, thread: Some(thread) })
}

fn installed_frontends(installed: &InstalledTable) -> BTreeSet<Frontend> {
    let frontends = Family::ALL.into_iter().flat_map(|family| {
        let services = family_set(&installed.table, family, "services").iter();
        services.filter_map(move |element| {
            let (_, port) = parse_service(family, element)?;
            Some(Frontend { family, protocol: port.protocol, port: port.port })
        })
    });
    frontends.collect()
}

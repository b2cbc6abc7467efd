//! Adopts the rules of an earlier process of the agent at the start, before the API server answers. Does I/O.

use std::collections::BTreeMap;

use akrobateo_core::{Family, Frontend};
use netfilter::nft::InstalledTable;
use tokio::sync::mpsc::UnboundedSender;

use super::metrics::Metrics;
use super::node_kernel::{NodeKernel, RunningDataPath};
use super::observer::{DataPathEvent, EventSender};
use super::state_file::StateFile;
use crate::data_path::DataPathError;
use crate::plan::InstalledServices;
use crate::table::family_set;
use crate::table::keys::{parse_service, service_identity};

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
    let frontends = find_installed_frontends(&installed);
    let mut installed = InstalledServices { frontends, services: BTreeMap::new() };
    let Some(config) = state_file.load() else { return Ok(Adoption { installed, thread: None }) };
    // Another program may have deleted some of the rules.
    for service in &config.services {
        installed.frontends.extend(service.frontends().map(|it| (it, service.identity())));
    }
    installed.services =
        config.services.iter().map(|service| (service.name.clone(), service.clone())).collect();
    tracing::info!(services = config.services.len(), "continuing with the last configuration of the node");
    metrics.set_services(&config);
    metrics.set_endpoints(&config);
    let thread = kernel.start_data_path(ADOPTED_CONFIG_ID, config, Box::new(EventSender(events.clone())))?;
    Ok(Adoption { installed, thread: Some(thread) })
}

/// Returns the frontends in the table, and the texts that identify their Services.
fn find_installed_frontends(installed: &InstalledTable) -> BTreeMap<Frontend, String> {
    let frontends = Family::ALL.into_iter().flat_map(|family| {
        let services = family_set(&installed.table, family, "services").iter();
        services.filter_map(move |element| {
            let (_, port) = parse_service(family, element)?;
            let frontend = Frontend { family, protocol: port.protocol, port: port.port };
            Some((frontend, service_identity(element)?.to_owned()))
        })
    });
    frontends.collect()
}

#[cfg(test)]
mod tests {
    use akrobateo_core::Protocol;

    use super::*;
    use crate::config::fixtures::{config, endpoint, service};
    use crate::config::{NodeConfig, Service, ServicePort};
    use crate::table::NodeTables;

    #[test]
    fn table_names_the_service_of_each_frontend() {
        let named_service = |name: &str, port: u16| {
            let port = ServicePort {
                protocol: Protocol::Tcp,
                port: port.try_into().unwrap(),
                endpoints: vec![endpoint(10, 1)],
            };
            let uid = Some(format!("uid-of-{name}"));
            Service { name: name.to_owned(), uid, families: vec![Family::V4], ports: vec![port], ..service() }
        };
        // The node does not serve the last Service, but has some of its endpoints.
        let mut services =
            vec![named_service("shop/web", 80), named_service("shop/api", 81), named_service("other", 82)];
        services[2].families.clear();
        let table = NodeTables::new(&NodeConfig { services: services.clone(), ..config() }).inet;
        let owners = services[..2].iter().map(|it| (it.frontends().next().unwrap(), it.identity()));
        assert_eq!(find_installed_frontends(&table.into()), owners.collect());
    }
}

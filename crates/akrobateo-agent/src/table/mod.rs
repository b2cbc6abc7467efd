//! The node's nftables tables for a configuration. Pure.
//!
//! The table of family inet translates, recognizes and steers packets. The table of family netdev writes MAC addresses.
//! The number of rules does not grow with the number of Services. A changed endpoint changes only elements of sets.
//!
//! # The path of a flow
//! 1. `raw_pre` sets the conntrack zone of a packet that a peer has sent with a foreign source address
//!    ([`recognition`]).
//! 2. `nat_pre` and `nat_out` find the Service of the destination, choose an endpoint, and translate the destination
//!    ([`services`]).
//! 3. `steer_pre` and `steer_out` mark packets that go through the tunnel ([`steering`]).
//! 4. `nat_post` masquerades the client's address or keeps the address ([`nat`]).
//! 5. `post` marks replies to a request that a peer has forwarded. The egress hook writes this peer's MAC address into
//!    the replies ([`steering`]). Without the egress hook, `steer_pre` and `steer_out` mark the replies, and routing
//!    rules send the replies to the peer. `unmark` then removes the marks ([`unmarking`]).
//!
//! [`recognition`]: self
//! [`services`]: self
//! [`steering`]: self
//! [`nat`]: self
//! [`unmarking`]: self

mod affinity;
mod destination;
mod endpoint_chains;
mod expressions;
mod identity;
mod ip_version;
pub mod keys;
mod nat;
mod port_counters;
mod recognition;
mod reduction;
mod services;
mod steering;
#[cfg(test)]
mod tests;
mod unmarking;

use netfilter::nft::Table;

pub use self::identity::{INTERIM_TABLE_NAME, TABLE_NAME, inet_table_id, netdev_table_id, table_ids};
pub use self::keys::{family_set, last_paths_in_table, paths_in_table};
pub use self::port_counters::{Outcome, PortCount, parse_port_count, port_counter_set, port_counts};
pub use self::reduction::reduce;
use self::services::ServicePart;
use crate::config::NodeConfig;

/// The tables of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeTables {
    /// The table that translates, recognizes and steers packets.
    pub inet: Table,
    /// The table that writes MAC addresses. `None` if packets between nodes never have clients' addresses, or if the
    /// kernel lacks the egress hook.
    pub netdev: Option<Table>,
}

impl NodeTables {
    /// Returns the tables for a configuration.
    #[must_use]
    pub fn new(config: &NodeConfig) -> Self {
        let services = ServicePart::new(config);
        let keeps_client_addresses = config.keeps_client_addresses();
        let has_egress_hook = config.node.has_egress_hook;
        let mut inet = Table::empty(inet_table_id());
        services.add_to(&mut inet);
        nat::add_nat_chains(&mut inet, config, keeps_client_addresses);
        if keeps_client_addresses {
            recognition::add_recognition_chains(&mut inet, config);
            steering::add_steering_chains(&mut inet, config);
            if !has_egress_hook {
                unmarking::add_unmarking_chain(&mut inet, config);
            }
        }
        let netdev = (keeps_client_addresses && has_egress_hook).then(|| steering::netdev_table(config));
        Self { inet, netdev }
    }

    /// Returns the same tables with another name.
    #[must_use]
    pub fn with_name(mut self, name: &'static str) -> Self {
        for table in [Some(&mut self.inet), self.netdev.as_mut()].into_iter().flatten() {
            table.id.name = name.into();
        }
        self
    }
}

/// Returns true if a packet that matches an element of the set needs elements of other sets afterwards.
///
/// The agent adds the elements of these other sets first.
#[must_use]
pub fn leads_to_other_sets(set_name: &str) -> bool {
    ["services", "kept", "peer_zones"].contains(&set_name.trim_end_matches(['4', '6']))
}

//! The desired state of one changed Service, and the expected results of requests to the Service. Pure.

use std::collections::{BTreeMap, BTreeSet};

use akrobateo_core::Protocol;
use akrobateo_core::annotations::CLIENT_ADDRESS;
use e2e::{Failure, Reply, ServiceBuilder, ensure, ensure_eq, service};

use crate::backends::{GROUP_LABEL, GROUPS};

/// Ranges that contain the client, for both families.
const RANGES_WITH_CLIENT: [&str; 2] = ["172.29.0.0/24", "fd29::/64"];
/// Ranges that do not contain the client, for both families.
const RANGES_WITHOUT_CLIENT: [&str; 2] = ["192.0.2.0/24", "2001:db8::/32"];

/// A port of a Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Port {
    pub(crate) protocol: Protocol,
    pub(crate) number: u16,
    /// The backend's port.
    pub(crate) target: u16,
}

/// The source ranges of a Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SourceRanges {
    All,
    WithClient,
    WithoutClient,
}

/// The programs that forward a Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Workload {
    Agents,
    /// A DaemonSet of proxies, only for this Service.
    DaemonSet,
}

/// The desired state of one changed Service.
#[derive(Clone, Debug)]
pub(crate) struct ServiceModel {
    pub(crate) ports: Vec<Port>,
    pub(crate) families: &'static [&'static str],
    /// The index of the group of backend pods.
    pub(crate) backend_group: usize,
    pub(crate) has_traffic_policy_local: bool,
    pub(crate) has_session_affinity: bool,
    pub(crate) has_node_ports: bool,
    pub(crate) source_ranges: SourceRanges,
    /// The annotation `akrobateo.io/client-address`.
    pub(crate) client_address: Option<&'static str>,
    /// The nodes of the node selector. `None` if the Service has no node selector.
    pub(crate) selected_nodes: Option<BTreeSet<usize>>,
    pub(crate) workload: Workload,
    /// An annotation with an invalid value.
    pub(crate) invalid_annotation: Option<(&'static str, &'static str)>,
}

/// The backend pods of a Service: the name of each pod, keyed by the index of its node.
pub(crate) type Endpoints = BTreeMap<usize, String>;

impl ServiceModel {
    /// Returns the nodes that must be published.
    pub(crate) fn expected_nodes(&self, node_count: usize, endpoints: &Endpoints) -> BTreeSet<usize> {
        let is_selected =
            |node: &usize| self.selected_nodes.as_ref().is_none_or(|nodes| nodes.contains(node));
        let has_endpoint = |node: &usize| !self.has_traffic_policy_local || endpoints.contains_key(node);
        (0..node_count).filter(is_selected).filter(has_endpoint).collect()
    }

    /// Returns true if the Service has its own proxies.
    pub(crate) fn is_dedicated(&self) -> bool {
        self.workload == Workload::DaemonSet
    }

    /// Returns true if the published nodes must answer the client outside the cluster.
    pub(crate) fn allows_client(&self) -> bool {
        self.source_ranges != SourceRanges::WithoutClient
    }

    /// Checks the answer of a node. `node_names` are the names of all nodes, and `node` is the index of the requested
    /// node.
    pub(crate) fn check_reply(
        &self,
        reply: &Reply,
        node_names: &[String],
        node: usize,
        endpoints: &Endpoints,
    ) -> Result<(), Failure> {
        let answer = reply.answer()?;
        let requested_port = (reply.target.protocol, reply.target.port);
        let port = self.ports.iter().find(|port| (port.protocol, port.number) == requested_port);
        ensure(port.is_some_and(|port| port.target == answer.port), || {
            format!("a wrong target port answered: {reply}; expected {port:?}")
        })?;
        ensure(endpoints.values().any(|name| *name == answer.host), || {
            format!("a wrong backend answered: {reply}; expected one of {endpoints:?}")
        })?;
        if self.has_traffic_policy_local {
            ensure_eq("node that answers with policy Local", &answer.node, &node_names[node])?;
        }
        let keeps_client_address = reply.client_address == Some(answer.client_address.ip());
        let must_keep_client_address =
            self.has_traffic_policy_local || self.client_address != Some("masquerade");
        // Proxies never keep the client's address with the policy Cluster, and with the policy Local kube-proxy
        // forwards.
        ensure(self.is_dedicated() || keeps_client_address == must_keep_client_address, || {
            let expected = if must_keep_client_address { "the client's address" } else { "another address" };
            format!("the backend saw a wrong address: {reply}; expected {expected}")
        })
    }

    /// Returns the Service with this name.
    pub(crate) fn build(&self, name: &str, node_names: &[String]) -> ServiceBuilder {
        let mut builder =
            service(name).families(self.families).add_selector_label(GROUP_LABEL, GROUPS[self.backend_group]);
        for port in &self.ports {
            builder = builder.port(port.protocol, port.number, port.target);
        }
        builder = if self.has_node_ports { builder } else { builder.without_node_ports() };
        builder = if self.has_traffic_policy_local { builder.traffic_policy_local() } else { builder };
        builder = if self.has_session_affinity { builder.session_affinity() } else { builder };
        builder = match self.source_ranges {
            SourceRanges::All => builder,
            SourceRanges::WithClient => builder.source_ranges(&RANGES_WITH_CLIENT.map(str::to_owned)),
            SourceRanges::WithoutClient => builder.source_ranges(&RANGES_WITHOUT_CLIENT.map(str::to_owned)),
        };
        if let Some(value) = self.client_address {
            builder = builder.annotation(CLIENT_ADDRESS, value);
        }
        if let Some(nodes) = &self.selected_nodes {
            let names: Vec<_> = nodes.iter().map(|node| node_names[*node].as_str()).collect();
            builder = builder.on_nodes(&names);
        }
        builder = if self.is_dedicated() { builder.with_dedicated_mode() } else { builder };
        if let Some((name, value)) = self.invalid_annotation {
            builder = builder.annotation(name, value);
        }
        builder
    }
}

//! The report of a node agent. The report contains the served and the refused Services, and the facts that peers need
//! to reach the node. The agent stores the report in a Lease. Pure.

use std::collections::BTreeSet;
use std::net::IpAddr;

use akrobateo_core::digest::digest;
use akrobateo_core::dns1123::MAX_SUBDOMAIN_LENGTH;
use k8s_openapi::api::coordination::v1::Lease;
use kube::ResourceExt;
use serde::{Deserialize, Serialize};

/// The label of the Leases of agents. The value of the label is the name of the operator instance.
pub const AGENT_LABEL: &str = "akrobateo.io/agent";
/// The annotation of a Lease that contains the report in JSON.
pub const REPORT_ANNOTATION: &str = "akrobateo.io/report";
/// The time in seconds after which the operator treats an agent as silent if the agent has not renewed its Lease.
pub const LEASE_DURATION_SECONDS: i32 = 15;

/// The report of the agent of one node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AgentReport {
    /// The name of the node.
    pub node: String,
    /// The version of the agent.
    pub version: String,
    /// True if the agent has ended in an orderly way. The agent's rules remain in the kernel, and the next agent of the
    /// node continues to use them.
    pub is_paused: bool,
    /// The versions of the objects that the rules in the kernel contain; `None` until the agent has written its first
    /// rules.
    pub applied_versions: Option<AppliedVersions>,
    /// The number of Services that the agent serves.
    pub served_count: usize,
    /// The ports that the agent refuses.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub refused_ports: Vec<PortProblem>,
    /// The refused Services whose ports are not in `refused_ports`, because the report has a limited length. Each entry
    /// is `<namespace>/<name>`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub refused_services: Vec<String>,
    /// The Services with an invalid spec that the agent does not serve, although their status has an address of the
    /// node. Each entry is `<namespace>/<name>`. The agent does not know the last valid settings of these Services, for
    /// example because the node was restarted.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unserved_services: Vec<String>,
    /// The ports that the agent serves, and that a pod or a process of the node started to use later.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub doubly_used_ports: Vec<PortProblem>,
    /// The Services in dedicated mode that the agent still serves, because the node has no ready proxy yet. Each entry
    /// is `<namespace>/<name>`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub services_waiting_for_proxies: Vec<String>,
    /// The error of the last attempt to change the rules in the kernel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The facts that peers need to send packets through this node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<NodeNetwork>,
    /// The peers whose endpoints do not see the client's address, because the agent masquerades packets to these
    /// endpoints.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub masqueraded_peers: Vec<MasqueradedPeer>,
    /// The number of entries in conntrack, and the maximum.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub conntrack: Option<ConntrackUse>,
}

/// The resource versions of the newest objects that the rules contain. Resource versions are decimal numbers that grow
/// with each change (<https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-versions>).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AppliedVersions {
    /// The version of the Services.
    pub services: u64,
    /// The version of the `EndpointSlices`.
    pub endpoint_slices: u64,
}

/// A Service's port that is in use on the node by another Service, a pod or a process.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PortProblem {
    /// The Service, as `<namespace>/<name>`.
    pub service: String,
    /// The port and its protocol, for example `80/TCP`.
    pub port: String,
    /// The owner of the port.
    pub owner: PortOwner,
}

/// The owner of a port on a node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PortOwner {
    /// Another Service, as `<namespace>/<name>`.
    Service(String),
    /// The hostPort of a pod, as `<namespace>/<name>`.
    Pod(String),
    /// A process of the node.
    Process,
    /// The report does not contain the owner, because it has a limited length.
    Unreported,
}

/// The facts that peers need to reach the node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeNetwork {
    /// The number that identifies the node. Each node has a different number.
    pub number: u16,
    /// The addresses of the node.
    pub addresses: Vec<IpAddr>,
    /// The MAC address of the uplink, for example `02:00:00:00:00:01`.
    pub mac: String,
    /// The addresses to which peers send probes. These addresses are in the ranges of the node's pods.
    pub probe_addresses: Vec<IpAddr>,
}

/// A peer whose endpoints do not see the client's address, because the agent masquerades packets to these endpoints.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MasqueradedPeer {
    /// The name of the peer's node.
    pub node: String,
    /// The reason, for the message in the Service's condition.
    pub reason: String,
}

/// The use of the conntrack table of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConntrackUse {
    /// The number of entries.
    pub count: u64,
    /// The maximum number of entries.
    pub max: u64,
}

impl AgentReport {
    /// Reads the report in a Lease. Returns `None` if the Lease has no report.
    #[must_use]
    pub fn from_lease(lease: &Lease) -> Option<Result<Self, serde_json::Error>> {
        lease.annotations().get(REPORT_ANNOTATION).map(|text| serde_json::from_str(text))
    }

    /// Returns the report in JSON, as the annotation of the Lease contains it.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(self)
    }

    /// Returns true if the rules contain these versions of a Service and of its `EndpointSlices`.
    #[must_use]
    pub fn has_applied(&self, service_version: u64, endpoint_slice_version: u64) -> bool {
        self.applied_versions.as_ref().is_some_and(|applied| {
            applied.services >= service_version && applied.endpoint_slices >= endpoint_slice_version
        })
    }

    /// Returns true if the reports differ at most in the use of conntrack, which changes all the time.
    #[must_use]
    pub fn equals_except_conntrack(&self, other: &Self) -> bool {
        Self { conntrack: None, ..self.clone() } == Self { conntrack: None, ..other.clone() }
    }

    /// Returns the refused ports of a Service, which is `<namespace>/<name>`. The list is empty if the agent does not
    /// refuse the Service. If the report does not contain the ports, the list has one element without a port.
    #[must_use]
    pub fn refusals(&self, service: &str) -> Vec<PortProblem> {
        let is_unreported = self.refused_services.iter().any(|name| name == service);
        let unreported_problem = is_unreported.then(|| PortProblem {
            service: service.to_owned(),
            port: String::new(),
            owner: PortOwner::Unreported,
        });
        let reported_problems = self.refused_ports.iter().filter(|problem| problem.service == service);
        reported_problems.cloned().chain(unreported_problem).collect()
    }

    /// Returns the names of all refused Services.
    #[must_use]
    pub fn all_refused_services(&self) -> BTreeSet<&str> {
        let services = self.refused_ports.iter().map(|problem| &problem.service);
        services.chain(&self.refused_services).map(String::as_str).collect()
    }
}

/// Returns the name of the Lease of a node's agent.
#[must_use]
pub fn lease_name(operator_instance: &str, node: &str) -> String {
    let name = format!("{operator_instance}-{node}");
    if name.len() <= MAX_SUBDOMAIN_LENGTH {
        return name;
    }
    let digest = digest(node);
    let prefix: String = name.chars().take(MAX_SUBDOMAIN_LENGTH - digest.len() - 1).collect();
    format!("{}-{digest}", prefix.trim_end_matches(['-', '.']))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn report() -> AgentReport {
        AgentReport {
            node: "n1".to_owned(),
            applied_versions: Some(AppliedVersions { services: 12, endpoint_slices: 7 }),
            refused_ports: vec![PortProblem {
                service: "shop/web".to_owned(),
                port: "80/TCP".to_owned(),
                owner: PortOwner::Pod("shop/ingress".to_owned()),
            }],
            ..AgentReport::default()
        }
    }

    #[test]
    fn report_in_a_lease_equals_the_written_report() {
        let mut lease = Lease::default();
        assert!(AgentReport::from_lease(&lease).is_none());
        let json = report().to_json().unwrap();
        lease.metadata.annotations = Some(BTreeMap::from([(REPORT_ANNOTATION.to_owned(), json)]));
        assert_eq!(AgentReport::from_lease(&lease).unwrap().unwrap(), report());
    }

    #[test]
    fn unknown_fields_of_a_report_are_ignored() {
        let report: AgentReport =
            serde_json::from_str(r#"{"node": "n1", "later": 1, "refused": []}"#).unwrap();
        assert_eq!((report.node.as_str(), report.applied_versions), ("n1", None));
    }

    #[test]
    fn service_is_applied_only_if_both_versions_are_applied() {
        assert!(report().has_applied(12, 7));
        assert!(!report().has_applied(13, 7) && !report().has_applied(12, 8));
        assert!(!AgentReport::default().has_applied(0, 0));
    }

    #[test]
    fn service_is_refused_with_or_without_its_ports_in_the_report() {
        let report = AgentReport { refused_services: vec!["shop/admin".to_owned()], ..report() };
        assert_eq!(report.refusals("shop/web"), report.refused_ports);
        assert_eq!(report.refusals("shop/admin")[0].owner, PortOwner::Unreported);
        assert!(report.refusals("shop/api").is_empty());
        assert_eq!(report.all_refused_services().into_iter().collect::<Vec<_>>(), ["shop/admin", "shop/web"]);
    }

    #[test]
    fn lease_name_fits_the_length_limit_and_is_unique() {
        assert_eq!(lease_name("akrobateo", "n1"), "akrobateo-n1");
        let long_node = "n".repeat(253);
        let name = lease_name("akrobateo", &long_node);
        assert_eq!(name.len(), MAX_SUBDOMAIN_LENGTH);
        assert_ne!(name, lease_name("akrobateo", &format!("{}x", "n".repeat(252))));
    }
}

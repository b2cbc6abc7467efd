//! Compares the cluster with the model: the published addresses, the answers, and the ports that must not answer. Does
//! I/O.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use akrobateo_core::Protocol;
use e2e::{
    Failure, Namespace, NodeAddresses, Target, build_targets, consistently, ensure, eventually_within,
};

use crate::changes::Model;
use crate::model::ServiceModel;

/// The time until all changes have taken effect. A Service with its own proxies needs most of this time.
const CONVERGENCE_DEADLINE: Duration = Duration::from_mins(5);
/// The time for which no silent target may answer.
const SILENCE_DURATION: Duration = Duration::from_secs(10);
/// The maximum number of requests at the same time.
const MAX_REQUESTS: usize = 250;
/// The maximum number of divergences in a message.
const MAX_DIVERGENCES_IN_MESSAGE: usize = 10;

/// Compares the cluster with a model.
pub(crate) struct DivergenceCheck<'a> {
    pub(crate) namespace: &'a Namespace,
    pub(crate) nodes: &'a [NodeAddresses; 3],
    pub(crate) model: &'a Model,
}

/// A target that must answer: the Service that must answer, its name, and the index of the node.
type AnsweringTargets<'a> = BTreeMap<Target, (String, &'a ServiceModel, usize)>;

impl DivergenceCheck<'_> {
    /// Waits until the state of the cluster is the state of the model.
    pub(crate) async fn wait_no_divergence(&self) -> Result<(), Failure> {
        eventually_within(
            CONVERGENCE_DEADLINE,
            "every Service is published as the model expects",
            async || ensure_none(&self.find_unexpected_addresses().await),
        )
        .await?;
        let (answering_targets, silent_targets) = self.collect_targets();
        println!(
            "checking {} targets that must answer, and {} targets that must not answer",
            answering_targets.len(),
            silent_targets.len()
        );
        eventually_within(CONVERGENCE_DEADLINE, "every Service answers as the model expects", async || {
            ensure_none(&self.find_unexpected_answers(&answering_targets).await?)
        })
        .await?;
        let ensure_silence = async || ensure_none(&self.find_answers(&silent_targets).await?);
        eventually_within(CONVERGENCE_DEADLINE, "no other port answers", ensure_silence).await?;
        consistently(SILENCE_DURATION, "no other port answers", ensure_silence).await
    }

    async fn find_unexpected_addresses(&self) -> Vec<String> {
        let mut divergences = Vec::new();
        for (name, service) in self.model.services() {
            let expected_nodes: Vec<_> =
                self.expected_nodes(service).into_iter().map(|node| self.nodes[node].clone()).collect();
            let builder = service.build(&name, self.model.node_names());
            if let Err(failure) = self.namespace.ensure_published(&builder, &expected_nodes).await {
                divergences.push(format!("Service {name}: {failure}; the model has {service:?}"));
            }
        }
        divergences
    }

    /// Returns the targets that must answer, and the targets that must not answer. No port may answer on a node that is
    /// not published. The free ports belonged to deleted Services, or to Services whose port has another number now.
    fn collect_targets(&self) -> (AnsweringTargets<'_>, Vec<Target>) {
        let (mut answering_targets, mut silent_targets) = (AnsweringTargets::new(), Vec::new());
        for (name, service) in self.model.services() {
            let builder = service.build(&name, self.model.node_names());
            let expected_nodes = self.expected_nodes(service);
            for (index, node) in self.nodes.iter().enumerate() {
                let addresses = filter_families(&node.addresses, service.families);
                let targets = build_targets(&builder, &addresses);
                if service.allows_client() && expected_nodes.contains(&index) {
                    answering_targets
                        .extend(targets.into_iter().map(|target| (target, (name.clone(), service, index))));
                } else {
                    silent_targets.extend(targets);
                }
            }
        }
        for host in self.nodes.iter().flat_map(|node| &node.addresses).copied() {
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                let free_ports = self.model.free_ports().iter();
                silent_targets.extend(free_ports.map(|&port| Target { protocol, host, port }));
            }
        }
        (answering_targets, silent_targets)
    }

    async fn find_unexpected_answers(&self, targets: &AnsweringTargets<'_>) -> Result<Vec<String>, Failure> {
        let mut divergences = Vec::new();
        for chunk in targets.keys().copied().collect::<Vec<_>>().chunks(MAX_REQUESTS) {
            for reply in self.namespace.cluster().send_requests(chunk).await? {
                let Some((name, service, node)) = targets.get(&reply.target) else { continue };
                let endpoints = self.model.endpoints(service);
                if let Err(failure) = service.check_reply(&reply, self.model.node_names(), *node, endpoints) {
                    divergences.push(format!("Service {name}: {failure}; the model has {service:?}"));
                }
            }
        }
        Ok(divergences)
    }

    async fn find_answers(&self, targets: &[Target]) -> Result<Vec<String>, Failure> {
        let mut divergences = Vec::new();
        for chunk in targets.chunks(MAX_REQUESTS) {
            let replies = self.namespace.cluster().send_requests(chunk).await?;
            let answers = replies.iter().filter(|reply| reply.result.is_ok());
            divergences.extend(answers.map(|reply| format!("{reply}, but the model expects no answer")));
        }
        Ok(divergences)
    }

    fn expected_nodes(&self, service: &ServiceModel) -> BTreeSet<usize> {
        service.expected_nodes(self.nodes.len(), self.model.endpoints(service))
    }
}

fn filter_families(addresses: &[IpAddr], families: &[&str]) -> Vec<IpAddr> {
    let has_family = |address: &IpAddr| families.contains(if address.is_ipv4() { &"IPv4" } else { &"IPv6" });
    addresses.iter().copied().filter(has_family).collect()
}

fn ensure_none(divergences: &[String]) -> Result<(), Failure> {
    ensure(divergences.is_empty(), || {
        let first_divergences = &divergences[..divergences.len().min(MAX_DIVERGENCES_IN_MESSAGE)];
        format!("{} divergences: {}", divergences.len(), first_divergences.join("; "))
    })
}

//! The Services that no change touches, and the continuous requests to them. Does I/O.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::Duration;

use akrobateo_core::Protocol;
use e2e::backend::{FIRST_OF_FIFTY_PORTS, echo_pod};
use e2e::{Failure, Namespace, NodeAddresses, Reply, ServiceBuilder, Target, ensure, service};
use futures::future::{try_join, try_join_all};
use k8s_openapi::jiff::Timestamp;
use tokio::time::{Instant, sleep};

use crate::backends::GROUP_LABEL;
use crate::connectivity::RequestLog;

pub(crate) const UNTOUCHED_SERVICE_COUNT: usize = 20;
/// The value of the label of the backends, and the prefix of their names.
const BACKENDS: &str = "untouched";
const FAMILIES: [&[&str]; 4] = [&["IPv4"], &["IPv6"], &["IPv4", "IPv6"], &["IPv6", "IPv4"]];
const PROTOCOLS: [&[Protocol]; 3] = [&[Protocol::Tcp], &[Protocol::Udp], &[Protocol::Tcp, Protocol::Udp]];
/// The backends answer slowly if an agent or another pod on the node starts at the same time. With a large request, the
/// backends get processor time before these pods.
const BACKEND_CPU_REQUEST: &str = "500m";
/// The pause between two rounds of requests. Without a pause, the client would need too much processor time.
const PAUSE_BETWEEN_ROUNDS: Duration = Duration::from_millis(300);
/// The time limit for an answer. On a machine with few processors, the client and the backend may get no processor for
/// a second.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(4);

/// The targets of the requests, and the target port that must answer each of them.
type TargetPorts = BTreeMap<Target, u16>;

/// The Services that no change touches. Their backends run only on nodes that are never cut.
pub(crate) struct UntouchedServices {
    services: Vec<ServiceBuilder>,
    target_ports_on_connected_nodes: TargetPorts,
    target_ports_on_third_node: TargetPorts,
}

impl UntouchedServices {
    /// Creates the Services and their backends, and waits until all Services are exposed on all nodes.
    pub(crate) async fn start(
        namespace: &Namespace,
        nodes: &[NodeAddresses; 3],
        ports: &[u16; UNTOUCHED_SERVICE_COUNT],
    ) -> Result<Self, Failure> {
        try_join_all(nodes[..2].iter().map(async |node| {
            let pod = echo_pod(&format!("{BACKENDS}-{}", node.name)).label(GROUP_LABEL, BACKENDS);
            namespace.start_pod(&pod.on_node(&node.name).cpu_request(BACKEND_CPU_REQUEST)).await
        }))
        .await?;
        let services: Vec<_> =
            ports.iter().enumerate().map(|(index, port)| build_service(index, *port)).collect();
        try_join_all(services.iter().map(|service| namespace.apply(service))).await?;
        let (mut on_connected_nodes, mut on_third_node) = (TargetPorts::new(), TargetPorts::new());
        for (index, service) in services.iter().enumerate() {
            for reply in namespace.wait_exposed(service).await? {
                let targets = if nodes[2].addresses.contains(&reply.target.host) {
                    &mut on_third_node
                } else {
                    &mut on_connected_nodes
                };
                targets.insert(reply.target, target_port(index));
            }
        }
        Ok(Self {
            services,
            target_ports_on_connected_nodes: on_connected_nodes,
            target_ports_on_third_node: on_third_node,
        })
    }

    /// Sends requests to all Services through all nodes, and records the results. Ends only if too many requests fail.
    pub(crate) async fn request_continuously(
        &self,
        namespace: &Namespace,
        log: &RequestLog,
    ) -> Result<Infallible, Failure> {
        // The requests to a cut node take long, and must not delay the other requests.
        let request_connected_nodes = async {
            loop {
                let failures = send_round(namespace, &self.target_ports_on_connected_nodes).await?;
                log.record_round(self.target_ports_on_connected_nodes.len(), failures)?;
                sleep(PAUSE_BETWEEN_ROUNDS).await;
            }
        };
        let request_third_node = async {
            loop {
                let round = (Instant::now(), log.state());
                let failures = send_round(namespace, &self.target_ports_on_third_node).await?;
                log.record_round_to_third_node(round, self.target_ports_on_third_node.len(), failures)?;
                sleep(PAUSE_BETWEEN_ROUNDS).await;
            }
        };
        try_join(request_connected_nodes, request_third_node)
            .await
            .map(|(never, _): (Infallible, Infallible)| never)
    }

    /// Checks that all Services are still published on all nodes.
    pub(crate) async fn ensure_published(
        &self,
        namespace: &Namespace,
        nodes: &[NodeAddresses],
    ) -> Result<(), Failure> {
        for service in &self.services {
            namespace.ensure_published(service, nodes).await.map_err(|failure| {
                Failure::UnexpectedState(format!("Service {}: {failure}", service.name()))
            })?;
        }
        Ok(())
    }
}

fn target_port(index: usize) -> u16 {
    FIRST_OF_FIFTY_PORTS.saturating_add(u16::try_from(index).unwrap_or_default())
}

fn build_service(index: usize, port: u16) -> ServiceBuilder {
    let builder = service(&format!("untouched-{index}"))
        .families(FAMILIES[index % FAMILIES.len()])
        .add_selector_label(GROUP_LABEL, BACKENDS);
    PROTOCOLS[index % PROTOCOLS.len()]
        .iter()
        .fold(builder, |builder, protocol| builder.port(*protocol, port, target_port(index)))
}

/// Sends a request to each target, and returns the failures.
async fn send_round(namespace: &Namespace, target_ports: &TargetPorts) -> Result<Vec<String>, Failure> {
    let targets: Vec<_> = target_ports.keys().copied().collect();
    let sent_at = Timestamp::now();
    let replies = namespace.cluster().send_requests_within(&targets, ANSWER_TIMEOUT).await?;
    let failures = replies.iter().filter_map(|reply| check_reply(reply, target_ports).err());
    Ok(failures.map(|failure| format!("{failure} (sent at {sent_at})")).collect())
}

fn check_reply(reply: &Reply, target_ports: &TargetPorts) -> Result<(), Failure> {
    let answer = reply.answer()?;
    let is_expected =
        answer.host.starts_with(BACKENDS) && target_ports.get(&reply.target) == Some(&answer.port);
    ensure(is_expected, || format!("a wrong backend or target port answered: {reply}"))
}

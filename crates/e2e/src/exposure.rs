//! Whether a Service is reached from outside the cluster, and how. Does I/O.

use std::net::IpAddr;
use std::time::Duration;

use k8s_openapi::api::core::v1::Service;

use crate::cluster::NodeAddresses;
use crate::{Failure, Namespace, Reply, ServiceBuilder, Target, ensure, eventually, same, stays};

/// Longer than kube-proxy takes to follow a status (it may batch changes for a second).
const SETTLING: Duration = Duration::from_secs(3);

impl Namespace {
    /// Waits until every port of a Service answers on every node's address, and the status says just these.
    pub async fn exposed(&self, service: &ServiceBuilder) -> Result<Vec<Reply>, Failure> {
        self.exposed_on(service, &self.cluster().nodes().await?).await
    }

    /// As [`Self::exposed`], on these nodes and no others.
    pub async fn exposed_on(
        &self,
        service: &ServiceBuilder,
        nodes: &[NodeAddresses],
    ) -> Result<Vec<Reply>, Failure> {
        let addresses = self.published_for(service, nodes).await?;
        let targets = targets(service, &addresses);
        eventually("every port answers on every address", async || {
            let replies = self.cluster().ask(&targets).await?;
            check(service, &replies)?;
            Ok(replies)
        })
        .await
    }

    /// Waits until the status has the addresses of these nodes, in the Service's families, and no others.
    pub async fn published_for(
        &self,
        service: &ServiceBuilder,
        nodes: &[NodeAddresses],
    ) -> Result<Vec<IpAddr>, Failure> {
        eventually("the status has the nodes' addresses", async || {
            let object = self.service(service).await?;
            let wanted = wanted(&object, nodes);
            ensure(!wanted.is_empty(), || "no node has an address of the Service's families".to_owned())?;
            same("published addresses", &published(&object), &wanted)?;
            let modes: Vec<_> = ingress(&object).map(|ingress| ingress.ip_mode.as_deref()).collect();
            same("their modes", &modes, &vec![Some(service.ip_mode()); wanted.len()])?;
            Ok(wanted)
        })
        .await
    }

    /// The addresses in a Service's status.
    pub async fn published(&self, service: &ServiceBuilder) -> Result<Vec<IpAddr>, Failure> {
        Ok(published(&self.service(service).await?))
    }

    /// Waits until none of the targets answers, and sees that it stays so.
    pub async fn unreachable(&self, targets: &[Target]) -> Result<(), Failure> {
        let silent = async || {
            let replies = self.cluster().ask(targets).await?;
            let answered: Vec<_> = replies.iter().filter(|reply| reply.outcome.is_ok()).collect();
            ensure(answered.is_empty(), || format!("answered: {answered:?}"))
        };
        eventually("nobody answers", silent).await?;
        stays(SETTLING, "that nobody answers", silent).await
    }

    /// Checks that each answer came by way of the proxy pod of the node that was asked: the server saw that pod's
    /// address, which nobody else can put there.
    pub async fn came_through_proxies(
        &self,
        service: &ServiceBuilder,
        replies: &[Reply],
    ) -> Result<(), Failure> {
        let nodes = self.cluster().nodes().await?;
        let proxies = self.proxy_addresses(service).await?;
        for reply in replies {
            let node = nodes.iter().find(|node| node.addresses.contains(&reply.target.host));
            let pod = node.and_then(|node| proxies.get(&node.name)).cloned().unwrap_or_default();
            let seen = reply.outcome.as_ref().map_err(|reason| Failure::Unmet(reason.clone()))?.client.ip();
            ensure(pod.contains(&seen), || {
                format!("{}: the client was {seen}, not one of {pod:?}", reply.target)
            })?;
        }
        Ok(())
    }
}

/// Every port of a Service on every address.
#[must_use]
pub fn targets(service: &ServiceBuilder, addresses: &[IpAddr]) -> Vec<Target> {
    let ports = service.ports().iter();
    let on_each = |port: &crate::PortMapping| {
        let (protocol, port) = (port.protocol, port.port);
        addresses.iter().map(move |&host| Target { protocol, host, port }).collect::<Vec<_>>()
    };
    ports.flat_map(on_each).collect()
}

/// Each port leads to the backend's port that the Service says.
fn check(service: &ServiceBuilder, replies: &[Reply]) -> Result<(), Failure> {
    let silent: Vec<_> =
        replies.iter().filter(|reply| reply.outcome.is_err()).map(ToString::to_string).collect();
    ensure(silent.is_empty(), || silent.join("; "))?;
    for reply in replies {
        let asked = (reply.target.protocol, reply.target.port);
        let port = service.ports().iter().find(|port| (port.protocol, port.port) == asked);
        let right = reply.outcome.iter().any(|answer| {
            port.is_some_and(|port| (answer.protocol, answer.port) == (port.protocol, port.target))
        });
        ensure(right, || format!("answered by another port than it should: {reply}"))?;
    }
    Ok(())
}

fn wanted(service: &Service, nodes: &[NodeAddresses]) -> Vec<IpAddr> {
    let families = service.spec.iter().flat_map(|spec| spec.ip_families.iter().flatten());
    let mut addresses: Vec<IpAddr> = nodes.iter().flat_map(|node| node.addresses.iter().copied()).collect();
    addresses.sort_unstable();
    let of = |family: &String| {
        let ipv4 = family == "IPv4";
        addresses.iter().copied().filter(move |address| address.is_ipv4() == ipv4).collect::<Vec<_>>()
    };
    families.flat_map(of).collect()
}

fn ingress(
    service: &Service,
) -> impl Iterator<Item = &k8s_openapi::api::core::v1::LoadBalancerIngress> + use<'_> {
    let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    status.into_iter().flat_map(|status| status.ingress.iter().flatten())
}

fn published(service: &Service) -> Vec<IpAddr> {
    ingress(service).filter_map(|ingress| ingress.ip.as_deref()?.parse().ok()).collect()
}

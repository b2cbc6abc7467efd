//! Checks that a Service is reachable from outside the cluster: through the node agents in shared mode, or through the
//! proxies in dedicated mode. Does I/O.

use std::net::IpAddr;
use std::time::Duration;

use k8s_openapi::api::core::v1::{LoadBalancerIngress, Service};

use crate::cluster::NodeAddresses;
use crate::failure::{Failure, ensure, ensure_eq};
use crate::mode::TestMode;
use crate::namespace::Namespace;
use crate::polling::{consistently, eventually};
use crate::reply::Reply;
use crate::service::{PortMapping, ServiceBuilder};
use crate::target::Target;

/// The maximum time that kube-proxy needs to apply a change. kube-proxy may collect changes for a second.
const KUBE_PROXY_SYNC_TIME: Duration = Duration::from_secs(3);

impl Namespace {
    /// Applies a Service, and waits until it is exposed on every node.
    pub async fn expose(&self, service: &ServiceBuilder) -> Result<Vec<Reply>, Failure> {
        self.apply(service).await?;
        self.wait_exposed(service).await
    }

    /// Applies a Service, and waits until it is exposed on these nodes and no others.
    pub async fn expose_on(
        &self,
        service: &ServiceBuilder,
        nodes: &[NodeAddresses],
    ) -> Result<Vec<Reply>, Failure> {
        self.apply(service).await?;
        self.wait_exposed_on(service, nodes).await
    }

    /// Waits until the status has exactly the addresses of all nodes, and every port answers on each address.
    pub async fn wait_exposed(&self, service: &ServiceBuilder) -> Result<Vec<Reply>, Failure> {
        self.wait_exposed_on(service, &self.cluster().list_nodes().await?).await
    }

    /// Waits like [`Self::wait_exposed`], but only for these nodes.
    pub async fn wait_exposed_on(
        &self,
        service: &ServiceBuilder,
        nodes: &[NodeAddresses],
    ) -> Result<Vec<Reply>, Failure> {
        let addresses = self.wait_published(service, nodes).await?;
        let targets = build_targets(service, &addresses);
        eventually("every port answers on every address", async || {
            let replies = self.cluster().send_requests(&targets).await?;
            check_target_ports(service, &replies)?;
            Ok(replies)
        })
        .await
    }

    /// Waits until the status has exactly the addresses of these nodes in the Service's families.
    pub async fn wait_published(
        &self,
        service: &ServiceBuilder,
        nodes: &[NodeAddresses],
    ) -> Result<Vec<IpAddr>, Failure> {
        eventually("the status has the nodes' addresses", async || {
            self.ensure_published(service, nodes).await
        })
        .await
    }

    /// Checks once that the status has exactly the addresses of these nodes in the Service's families. Returns the
    /// addresses.
    pub async fn ensure_published(
        &self,
        service: &ServiceBuilder,
        nodes: &[NodeAddresses],
    ) -> Result<Vec<IpAddr>, Failure> {
        let current_service = self.get_service(service).await?;
        let expected_addresses = expected_addresses(&current_service, nodes);
        ensure(!expected_addresses.is_empty(), || {
            "no node has an address of the Service's families".to_owned()
        })?;
        ensure_eq("published addresses", &published_addresses(&current_service), &expected_addresses)?;
        let ip_modes: Vec<_> =
            ingress_entries(&current_service).map(|ingress| ingress.ip_mode.as_deref()).collect();
        ensure_eq(
            "ipMode of each address",
            &ip_modes,
            &vec![Some(service.expected_ip_mode(self.mode())); expected_addresses.len()],
        )?;
        Ok(expected_addresses)
    }

    /// Returns the addresses in a Service's status.
    pub async fn published_addresses(&self, service: &ServiceBuilder) -> Result<Vec<IpAddr>, Failure> {
        Ok(published_addresses(&self.get_service(service).await?))
    }

    /// Waits until no target answers, and then checks for some seconds that no target answers again.
    pub async fn wait_unreachable(&self, targets: &[Target]) -> Result<(), Failure> {
        let ensure_no_answers = async || {
            let replies = self.cluster().send_requests(targets).await?;
            let replies_with_answer: Vec<_> = replies.iter().filter(|reply| reply.result.is_ok()).collect();
            ensure(replies_with_answer.is_empty(), || {
                format!("these targets answered: {replies_with_answer:?}")
            })
        };
        eventually("no target answers", ensure_no_answers).await?;
        consistently(KUBE_PROXY_SYNC_TIME, "no target answers", ensure_no_answers).await
    }

    /// Checks by the client's address that the node agents or the proxies forwarded each request. In shared mode the
    /// server must have seen the client's own address. In dedicated mode the server must have seen the proxy's address.
    pub async fn ensure_forwarded(&self, service: &ServiceBuilder, replies: &[Reply]) -> Result<(), Failure> {
        match self.mode() {
            TestMode::Shared => ensure_client_address_kept(replies),
            TestMode::Dedicated => self.ensure_answers_through_proxies(service, replies).await,
        }
    }

    /// Checks that each answer came through the proxy pod of the requested node. The server must have seen the
    /// address of this pod as the client's address. Only the pod itself can send from this address.
    pub async fn ensure_answers_through_proxies(
        &self,
        service: &ServiceBuilder,
        replies: &[Reply],
    ) -> Result<(), Failure> {
        let nodes = self.cluster().list_nodes().await?;
        let proxy_ips_by_node = self.proxy_pod_ips(service).await?;
        for reply in replies {
            let node = nodes.iter().find(|node| node.addresses.contains(&reply.target.host));
            let pod_ips =
                node.and_then(|node| proxy_ips_by_node.get(&node.name)).cloned().unwrap_or_default();
            let observed_client = reply.answer()?.client_address.ip();
            ensure(pod_ips.contains(&observed_client), || {
                format!(
                    "{}: the backend saw the client {observed_client}, expected one of {pod_ips:?}",
                    reply.target
                )
            })?;
        }
        Ok(())
    }
}

/// Checks that each server saw the client's own address.
pub fn ensure_client_address_kept(replies: &[Reply]) -> Result<(), Failure> {
    replies.iter().try_for_each(|reply| {
        let observed_client = reply.answer()?.client_address.ip();
        ensure(Some(observed_client) == reply.client_address, || {
            format!(
                "{}: the backend saw {observed_client}, expected {:?}",
                reply.target, reply.client_address
            )
        })
    })
}

/// Returns a target for every port of a Service on every address.
#[must_use]
pub fn build_targets(service: &ServiceBuilder, addresses: &[IpAddr]) -> Vec<Target> {
    let targets_of_port = |port: &PortMapping| {
        let (protocol, port) = (port.protocol, port.port);
        addresses.iter().map(move |&host| Target { protocol, host, port }).collect::<Vec<_>>()
    };
    service.ports().iter().flat_map(targets_of_port).collect()
}

/// Checks that every target answered, and that each answer came from the target port of the requested Service port.
fn check_target_ports(service: &ServiceBuilder, replies: &[Reply]) -> Result<(), Failure> {
    let failed_replies: Vec<_> =
        replies.iter().filter(|reply| reply.result.is_err()).map(ToString::to_string).collect();
    ensure(failed_replies.is_empty(), || failed_replies.join("; "))?;
    for reply in replies {
        let requested_port = (reply.target.protocol, reply.target.port);
        let port_mapping = service.ports().iter().find(|port| (port.protocol, port.port) == requested_port);
        let is_correct_target_port = reply.result.iter().any(|answer| {
            port_mapping
                .is_some_and(|port| (answer.protocol, answer.port) == (port.protocol, port.target_port))
        });
        ensure(is_correct_target_port, || {
            format!("a wrong target port answered: {reply}; expected {port_mapping:?}")
        })?;
    }
    Ok(())
}

fn expected_addresses(service: &Service, nodes: &[NodeAddresses]) -> Vec<IpAddr> {
    let families = service.spec.iter().flat_map(|spec| spec.ip_families.iter().flatten());
    let mut addresses: Vec<IpAddr> = nodes.iter().flat_map(|node| node.addresses.iter().copied()).collect();
    addresses.sort_unstable();
    let addresses_of_family = |family: &String| {
        let is_ipv4_family = family == "IPv4";
        addresses
            .iter()
            .copied()
            .filter(move |address| address.is_ipv4() == is_ipv4_family)
            .collect::<Vec<_>>()
    };
    families.flat_map(addresses_of_family).collect()
}

fn ingress_entries(service: &Service) -> impl Iterator<Item = &LoadBalancerIngress> + use<'_> {
    let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    status.into_iter().flat_map(|status| status.ingress.iter().flatten())
}

fn published_addresses(service: &Service) -> Vec<IpAddr> {
    ingress_entries(service).filter_map(|ingress| ingress.ip.as_deref()?.parse().ok()).collect()
}

//! With ipMode Proxy nobody but the proxies answers: the backend sees their addresses.

use std::net::IpAddr;

use contract::Protocol;
use e2e::{Failure, Namespace, ServiceBuilder, backend, service, targets, test};

use crate::exposure::fifty_ports;

async fn exposed_by_proxies(namespace: &Namespace, service: &ServiceBuilder) -> Result<(), Failure> {
    namespace.apply(service).await?;
    let replies = namespace.exposed(service).await?;
    namespace.came_through_proxies(service, &replies).await
}

#[tokio::test]
async fn the_proxies_forward_tcp_and_udp_of_one_port_number() -> Result<(), Failure> {
    test(async |namespace| {
        namespace.backend().await?;
        let [port] = namespace.ports().await?;
        let dns = service("dns").tcp(port).port(Protocol::Udp, port, backend::OTHER_PORT).proxy_mode();
        exposed_by_proxies(namespace, &dns).await
    })
    .await
}

#[tokio::test]
async fn the_proxies_forward_the_address_families_of_the_service() -> Result<(), Failure> {
    test(async |namespace| {
        namespace.backend().await?;
        for families in [["IPv6"].as_slice(), &["IPv4", "IPv6"]] {
            let [port] = namespace.ports().await?;
            let name = families.concat().to_lowercase();
            let web = service(&name).families(families).tcp(port).udp(port).proxy_mode();
            exposed_by_proxies(namespace, &web).await?;
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn the_proxies_forward_fifty_ports() -> Result<(), Failure> {
    test(async |namespace| {
        namespace.backend().await?;
        let ports = namespace.ports().await?;
        exposed_by_proxies(namespace, &fifty_ports(ports).proxy_mode()).await
    })
    .await
}

#[tokio::test]
async fn the_proxies_of_two_services_stand_side_by_side() -> Result<(), Failure> {
    test(async |namespace| {
        namespace.backend().await?;
        let [one, other] = namespace.ports().await?;
        exposed_by_proxies(namespace, &service("blue").tcp(one).proxy_mode()).await?;
        let green = service("green").port(Protocol::Udp, other, backend::OTHER_PORT).proxy_mode();
        exposed_by_proxies(namespace, &green).await
    })
    .await
}

#[tokio::test]
async fn the_proxies_let_only_clients_of_the_source_ranges_in() -> Result<(), Failure> {
    test(async |namespace| {
        namespace.backend().await?;
        let [port] = namespace.ports().await?;
        let web = service("web").families(&["IPv4", "IPv6"]).tcp(port).udp(port).proxy_mode();
        namespace.apply(&web).await?;
        let replies = namespace.exposed(&web).await?;
        let client = |ipv4| {
            let of_family = replies.iter().find(|reply| reply.target.host.is_ipv4() == ipv4);
            of_family.and_then(|reply| reply.from).expect("the client has an address")
        };
        only_this_client(namespace, &web, client(true), 32).await?;
        only_this_client(namespace, &web, client(false), 128).await?;
        let nobody = ["192.0.2.0/24".to_owned(), "2001:db8::/32".to_owned()];
        namespace.apply(&web.clone().source_ranges(&nobody)).await?;
        namespace.rolled_out(&web).await?;
        namespace.unreachable(&targets(&web, &namespace.published(&web).await?)).await
    })
    .await
}

/// A range of one family leaves nobody of the other in.
async fn only_this_client(
    namespace: &Namespace,
    web: &ServiceBuilder,
    client: IpAddr,
    bits: u8,
) -> Result<(), Failure> {
    namespace.apply(&web.clone().source_ranges(&[format!("{client}/{bits}")])).await?;
    let before = namespace.daemonset(web).await?.metadata.generation;
    e2e::eventually("the proxies are told", async || {
        let now = namespace.daemonset(web).await?;
        e2e::ensure(args(&now).contains(&format!("--source={client}/{bits}")), || format!("{before:?}"))
    })
    .await?;
    namespace.rolled_out(web).await?;
    let nodes = namespace.cluster().nodes().await?;
    let (inside, outside): (Vec<_>, Vec<_>) = targets(web, &namespace.published_for(web, &nodes).await?)
        .into_iter()
        .partition(|target| target.host.is_ipv4() == client.is_ipv4());
    let replies = namespace.cluster().ask(&inside).await?;
    assert!(replies.iter().all(|reply| reply.outcome.is_ok()), "{replies:?}");
    namespace.came_through_proxies(web, &replies).await?;
    namespace.unreachable(&outside).await
}

fn args(daemonset: &k8s_openapi::api::apps::v1::DaemonSet) -> Vec<String> {
    let pod = daemonset.spec.as_ref().and_then(|spec| spec.template.spec.as_ref());
    pod.into_iter().flat_map(|pod| pod.containers[0].args.clone().unwrap_or_default()).collect()
}

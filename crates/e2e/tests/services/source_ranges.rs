//! The proxies enforce the field `loadBalancerSourceRanges`.

use std::net::IpAddr;

use e2e::{Failure, Namespace, ServiceBuilder, ensure, eventually, exposed_service_test, service, targets};
use k8s_openapi::api::apps::v1::DaemonSet;

#[tokio::test]
async fn proxies_deny_clients_outside_the_source_ranges() -> Result<(), Failure> {
    exposed_service_test(
        |port| service("web").families(&["IPv4", "IPv6"]).tcp(port).udp(port).with_ip_mode_proxy(),
        async |namespace, web| {
            let replies = namespace.wait_exposed(&web).await?;
            let client_address = |ipv4| {
                let mut replies_of_family =
                    replies.iter().filter(|reply| reply.target.host.is_ipv4() == ipv4);
                replies_of_family.find_map(|reply| reply.client).expect("the client has an address")
            };
            check_only_client_is_allowed(namespace, &web, client_address(true), 32).await?;
            check_only_client_is_allowed(namespace, &web, client_address(false), 128).await
        },
    )
    .await
}

/// Allows only one client, and checks which targets answer. A range of one family denies all clients of the other
/// family.
async fn check_only_client_is_allowed(
    namespace: &Namespace,
    web: &ServiceBuilder,
    client: IpAddr,
    prefix_length: u8,
) -> Result<(), Failure> {
    let range = format!("{client}/{prefix_length}");
    namespace.apply(&web.clone().source_ranges(std::slice::from_ref(&range))).await?;
    eventually("the proxies have the source range", async || {
        let args = proxy_args(&namespace.get_daemonset(web).await?);
        ensure(args.contains(&format!("--source={range}")), || format!("the arguments are {args:?}"))
    })
    .await?;
    namespace.wait_rolled_out(web).await?;
    let nodes = namespace.cluster().list_nodes().await?;
    let (allowed, denied): (Vec<_>, Vec<_>) = targets(web, &namespace.wait_published(web, &nodes).await?)
        .into_iter()
        .partition(|target| target.host.is_ipv4() == client.is_ipv4());
    let replies = namespace.cluster().send_requests(&allowed).await?;
    namespace.ensure_answers_through_proxies(web, &replies).await?;
    namespace.wait_unreachable(&denied).await
}

fn proxy_args(daemonset: &DaemonSet) -> Vec<String> {
    let pod = daemonset.spec.as_ref().and_then(|spec| spec.template.spec.as_ref());
    pod.into_iter().flat_map(|pod| pod.containers[0].args.clone().unwrap_or_default()).collect()
}

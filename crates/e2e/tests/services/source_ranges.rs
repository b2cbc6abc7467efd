//! The field `loadBalancerSourceRanges` applies to both families and in both ipModes.

use std::net::IpAddr;

use e2e::{
    Failure, Namespace, ServiceBuilder, build_targets, ensure, ensure_eq, eventually,
    exposed_service_test_in_dedicated_mode, service,
};
use k8s_openapi::api::apps::v1::DaemonSet;

#[tokio::test]
async fn proxies_deny_clients_outside_the_source_ranges() -> Result<(), Failure> {
    exposed_service_test_in_dedicated_mode(
        |port| service("web").families(&["IPv4", "IPv6"]).tcp(port).udp(port).with_ip_mode_proxy(),
        async |namespace, web| {
            let replies = namespace.wait_exposed(&web).await?;
            let client_address = |is_ipv4| {
                let mut replies_of_family =
                    replies.iter().filter(|reply| reply.target.host.is_ipv4() == is_ipv4);
                replies_of_family.find_map(|reply| reply.client_address).expect("the client has an address")
            };
            check_source_range_denies_the_other_family(namespace, &web, client_address(true), 32).await?;
            check_source_range_denies_the_other_family(namespace, &web, client_address(false), 128).await
        },
    )
    .await
}

#[tokio::test]
async fn family_without_a_source_range_is_not_published_with_ip_mode_vip() -> Result<(), Failure> {
    exposed_service_test_in_dedicated_mode(
        |port| service("web").families(&["IPv4", "IPv6"]).tcp(port).udp(port),
        async |namespace, web| {
            let nodes = namespace.cluster().list_nodes().await?;
            let addresses = nodes.iter().flat_map(|node| node.addresses.clone());
            let (ipv4_addresses, ipv6_addresses): (Vec<IpAddr>, Vec<_>) =
                addresses.partition(IpAddr::is_ipv4);
            for (range, allowed_addresses, denied_addresses, denied_family) in [
                ("172.29.0.0/24", &ipv4_addresses, &ipv6_addresses, "IPv6"),
                ("fd29::/64", &ipv6_addresses, &ipv4_addresses, "IPv4"),
            ] {
                let web = web.clone().source_ranges(&[range.to_owned()]);
                namespace.apply(&web).await?;
                eventually("only addresses of the family with a range are published", async || {
                    let mut published_addresses = namespace.published_addresses(&web).await?;
                    published_addresses.sort_unstable();
                    ensure_eq("published addresses", &published_addresses, allowed_addresses)
                })
                .await?;
                eventually("every published address answers", async || {
                    let replies =
                        namespace.cluster().send_requests(&build_targets(&web, allowed_addresses)).await?;
                    replies.iter().try_for_each(|reply| reply.answer().map(drop))
                })
                .await?;
                // The addresses of a family without a range must not answer, because kube-proxy would allow all clients
                // of this family.
                namespace.wait_unreachable(&build_targets(&web, denied_addresses)).await?;
                let message_part = format!("no {denied_family} address is published");
                namespace
                    .wait_condition(&web, "Exposed", &["loadBalancerSourceRanges", &message_part])
                    .await?;
                namespace
                    .wait_warning(&web, "NodePortsOpen", &["nodePorts", "allocateLoadBalancerNodePorts"])
                    .await?;
            }
            Ok(())
        },
    )
    .await
}

/// Allows only one client, and checks which targets answer. A source range of one family denies all clients of the
/// other family.
async fn check_source_range_denies_the_other_family(
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
    let (allowed_targets, denied_targets): (Vec<_>, Vec<_>) =
        build_targets(web, &namespace.wait_published(web, &nodes).await?)
            .into_iter()
            .partition(|target| target.host.is_ipv4() == client.is_ipv4());
    let replies = namespace.cluster().send_requests(&allowed_targets).await?;
    namespace.ensure_answers_through_proxies(web, &replies).await?;
    namespace.wait_unreachable(&denied_targets).await
}

fn proxy_args(daemonset: &DaemonSet) -> Vec<String> {
    let pod = daemonset.spec.as_ref().and_then(|spec| spec.template.spec.as_ref());
    pod.into_iter().flat_map(|pod| pod.containers[0].args.clone().unwrap_or_default()).collect()
}

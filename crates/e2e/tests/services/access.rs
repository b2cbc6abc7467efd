//! loadBalancerSourceRanges, which the proxies enforce where nobody else answers.

use std::net::IpAddr;

use e2e::{Failure, Namespace, ServiceBuilder, ensure, eventually, service, targets, test};
use k8s_openapi::api::apps::v1::DaemonSet;

#[tokio::test]
async fn only_clients_of_the_source_ranges_are_let_in() -> Result<(), Failure> {
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
        only_this_client(namespace, &web, client(false), 128).await
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
    let range = format!("{client}/{bits}");
    namespace.apply(&web.clone().source_ranges(std::slice::from_ref(&range))).await?;
    eventually("the proxies are told", async || {
        let args = args(&namespace.daemonset(web).await?);
        ensure(args.contains(&format!("--source={range}")), || format!("{args:?}"))
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

fn args(daemonset: &DaemonSet) -> Vec<String> {
    let pod = daemonset.spec.as_ref().and_then(|spec| spec.template.spec.as_ref());
    pod.into_iter().flat_map(|pod| pod.containers[0].args.clone().unwrap_or_default()).collect()
}

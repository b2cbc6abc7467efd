//! Changes of a Service: the proxies change with the forwarding, and only then.

use akrobateo_core::Protocol;
use e2e::{Failure, Namespace, ServiceBuilder, backend, ensure, eventually, same, service, targets, test};

/// Applies a change that must not touch the proxies, and sees that it does not.
async fn changes_no_proxy(namespace: &Namespace, service: &ServiceBuilder) -> Result<(), Failure> {
    let before = namespace.rolled_out(service).await?;
    namespace.apply(service).await?;
    namespace.operator_caught_up().await?;
    let after = namespace.daemonset(service).await?;
    assert_eq!(before.metadata.uid, after.metadata.uid);
    assert_eq!(before.metadata.generation, after.metadata.generation);
    namespace.exposed(service).await.map(drop)
}

#[tokio::test]
async fn a_port_is_added() -> Result<(), Failure> {
    test(async |namespace| {
        namespace.backend().await?;
        let [old, new] = namespace.ports().await?;
        let web = service("web").tcp(old).proxy_mode();
        namespace.apply(&web).await?;
        namespace.exposed(&web).await?;
        let web = web.udp(new);
        namespace.apply(&web).await?;
        namespace.exposed(&web).await.map(drop)
    })
    .await
}

#[tokio::test]
async fn a_port_is_removed_and_no_longer_answers() -> Result<(), Failure> {
    test(async |namespace| {
        namespace.backend().await?;
        let [kept, removed] = namespace.ports().await?;
        let both = service("web").tcp(kept).tcp(removed).udp(removed);
        namespace.apply(&both).await?;
        let addresses: Vec<_> =
            namespace.exposed(&both).await?.iter().map(|reply| reply.target.host).collect();
        let web = both.clone().without(Protocol::Tcp, removed).without(Protocol::Udp, removed);
        namespace.apply(&web).await?;
        let old = service("web").tcp(removed).udp(removed);
        namespace.unreachable(&targets(&old, &addresses)).await?;
        namespace.rolled_out(&web).await?;
        namespace.exposed(&web).await.map(drop)
    })
    .await
}

#[tokio::test]
async fn another_target_port_reaches_the_clients_without_a_rollout() -> Result<(), Failure> {
    test(async |namespace| {
        namespace.backend().await?;
        let [port] = namespace.ports().await?;
        let web = service("web").tcp(port).proxy_mode();
        namespace.apply(&web).await?;
        namespace.exposed(&web).await?;
        changes_no_proxy(namespace, &web.port(Protocol::Tcp, port, backend::OTHER_PORT)).await
    })
    .await
}

#[tokio::test]
async fn what_does_not_concern_forwarding_rolls_nothing() -> Result<(), Failure> {
    test(async |namespace| {
        namespace.backend().await?;
        let [port] = namespace.ports().await?;
        let web = service("web").tcp(port);
        let node_port = namespace.apply(&web).await?.spec.unwrap().ports.unwrap()[0].node_port.unwrap();
        namespace.exposed(&web).await?;
        let web = web.label("team", "shop").annotation("example.com/note", "x").selecting("tier", "web");
        changes_no_proxy(namespace, &web).await?;
        let another = if node_port == 32_767 { 30_000 } else { node_port + 1 };
        changes_no_proxy(namespace, &web.node_port(another.try_into().unwrap())).await
    })
    .await
}

#[tokio::test]
async fn the_mode_of_the_addresses_may_be_changed() -> Result<(), Failure> {
    test(async |namespace| {
        namespace.backend().await?;
        let [port] = namespace.ports().await?;
        let web = service("web").tcp(port);
        namespace.apply(&web).await?;
        namespace.exposed(&web).await?;
        let web = web.proxy_mode();
        changes_no_proxy(namespace, &web).await?;
        eventually("kube-proxy leaves the addresses to the proxies", async || {
            let replies = namespace.exposed(&web).await?;
            namespace.came_through_proxies(&web, &replies).await
        })
        .await
    })
    .await
}

#[tokio::test]
async fn the_addresses_stay_in_the_status_while_the_proxies_change() -> Result<(), Failure> {
    test(async |namespace| {
        namespace.backend().await?;
        let [old, new] = namespace.ports().await?;
        let web = service("web").tcp(old);
        namespace.apply(&web).await?;
        namespace.exposed(&web).await?;
        let generation = namespace.rolled_out(&web).await?.metadata.generation;
        let before = namespace.published(&web).await?;
        let web = web.tcp(new);
        namespace.apply(&web).await?;
        let rollout = async {
            eventually("the proxies change", async || {
                let now = namespace.daemonset(&web).await?.metadata.generation;
                ensure(now > generation, || format!("generation {now:?}"))
            })
            .await?;
            namespace.rolled_out(&web).await
        };
        let looking = async {
            loop {
                same("addresses", &namespace.published(&web).await?, &before)?;
            }
        };
        tokio::select! {
            done = rollout => done.map(drop),
            seen = looking => seen,
        }
    })
    .await
}

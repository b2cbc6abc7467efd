//! Annotations and specs that cannot be obeyed: said so on the Service, while its proxies go on.

use akrobateo_core::annotations::IP_MODE;
use e2e::{Failure, eventually, service, test};

#[tokio::test]
async fn a_bad_annotation_is_refused_with_what_is_allowed_and_the_last_good_proxy_goes_on()
-> Result<(), Failure> {
    test(async |namespace| {
        namespace.backend().await?;
        let [port] = namespace.ports().await?;
        let web = service("web").tcp(port).proxy_mode();
        namespace.apply(&web).await?;
        let good = namespace.exposed(&web).await?;
        let before = namespace.rolled_out(&web).await?;
        namespace.apply(&web.clone().annotation(IP_MODE, "Bogus")).await?;
        eventually("a Warning names the value and what is allowed", async || {
            let events = namespace.events(&web).await?;
            let refusals = events.iter().filter(|event| {
                let note = event.note.as_deref().unwrap_or_default();
                event.type_.as_deref() == Some("Warning")
                    && event.reason.as_deref() == Some("InvalidAnnotation")
                    && [IP_MODE, "Bogus", "VIP", "Proxy"].iter().all(|word| note.contains(word))
            });
            e2e::same("such events", &refusals.count(), &1)
        })
        .await?;
        namespace.operator_caught_up().await?;
        assert_eq!(namespace.daemonset(&web).await?.metadata.generation, before.metadata.generation);
        let targets: Vec<_> = good.iter().map(|reply| reply.target).collect();
        let replies = namespace.cluster().ask(&targets).await?;
        namespace.came_through_proxies(&web, &replies).await?;
        // Mended, it takes up what has changed meanwhile.
        let [another] = namespace.ports().await?;
        let mended = web.tcp(another);
        namespace.apply(&mended).await?;
        namespace.exposed(&mended).await.map(drop)
    })
    .await
}

#[tokio::test]
async fn more_ports_than_a_node_can_hold_are_refused_with_the_limit() -> Result<(), Failure> {
    test(async |namespace| {
        let many = (20_001..=21_001).fold(service("many").without_node_ports(), e2e::ServiceBuilder::tcp);
        namespace.apply(&many).await?;
        namespace.warned(&many, "UnsupportedSpec", &["1001 ports", "at most 1000"]).await?;
        e2e::same("DaemonSets", &namespace.daemonsets(&many).await?.len(), &0)
    })
    .await
}

#[tokio::test]
async fn a_service_needs_no_node_ports() -> Result<(), Failure> {
    test(async |namespace| {
        namespace.backend().await?;
        let [port] = namespace.ports().await?;
        let web = service("web").tcp(port).udp(port).without_node_ports();
        let ports = namespace.apply(&web).await?.spec.and_then(|spec| spec.ports).unwrap_or_default();
        assert!(ports.iter().all(|port| port.node_port.is_none()), "{ports:?}");
        namespace.exposed(&web).await.map(drop)
    })
    .await
}

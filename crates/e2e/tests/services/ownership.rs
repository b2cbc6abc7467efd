//! Who owns a port: the oldest Service that wants it; and what the others are told.

use akrobateo_core::Protocol;
use e2e::{Failure, Target, ensure, eventually, same, service, test};

#[tokio::test]
async fn a_port_belongs_to_the_oldest_service_and_the_younger_one_takes_over_when_that_goes()
-> Result<(), Failure> {
    test(async |namespace| {
        namespace.backend().await?;
        let [port, own] = namespace.ports().await?;
        let older = service("older").tcp(port).proxy_mode();
        namespace.apply(&older).await?;
        namespace.exposed(&older).await?;
        let proxies = namespace.rolled_out(&older).await?;
        let younger = service("younger").tcp(port).tcp(own).proxy_mode();
        namespace.apply_after(&older, &younger).await?;
        let owner = format!("{}/older", namespace.name());
        namespace.warned(&younger, "PortConflict", &[&port.to_string(), &owner]).await?;
        same("DaemonSets of the younger", &namespace.daemonsets(&younger).await?.len(), &0)?;
        let undisturbed = namespace.rolled_out(&older).await?;
        same("the older's generation", &undisturbed.metadata.generation, &proxies.metadata.generation)?;
        namespace.exposed(&older).await?;
        namespace.delete(&older).await?;
        namespace.exposed(&younger).await.map(drop)
    })
    .await
}

#[tokio::test]
async fn services_on_disjoint_nodes_share_a_port_and_a_third_keeps_off_both() -> Result<(), Failure> {
    test(async |namespace| {
        namespace.backend().await?;
        let [port] = namespace.ports().await?;
        let nodes = namespace.cluster().nodes().await?;
        let [one, two, three, ..] = &nodes[..] else {
            return Err(Failure::Unmet("fewer than three nodes".to_owned()));
        };
        let first = service("first").tcp(port).proxy_mode().on(&[&one.name]);
        let second = service("second").tcp(port).proxy_mode().on(&[&two.name]);
        namespace.apply(&first).await?;
        namespace.apply(&second).await?;
        namespace.exposed_on(&first, std::slice::from_ref(one)).await?;
        namespace.exposed_on(&second, std::slice::from_ref(two)).await?;
        let third = service("third").tcp(port).proxy_mode();
        namespace.apply_after(&second, &third).await?;
        namespace.exposed_on(&third, std::slice::from_ref(three)).await?;
        namespace.warned(&third, "PortConflict", &[&one.name, &two.name]).await
    })
    .await
}

#[tokio::test]
async fn a_reserved_port_is_refused_and_a_node_port_is_a_conflict() -> Result<(), Failure> {
    test(async |namespace| {
        let ssh = service("ssh").tcp(22);
        namespace.apply(&ssh).await?;
        namespace.warned(&ssh, "PortReserved", &["22/TCP", "reserved"]).await?;
        same("DaemonSets", &namespace.daemonsets(&ssh).await?.len(), &0)?;
        let [port] = namespace.ports().await?;
        let holder = service("holder").tcp(port);
        let spec = namespace.apply(&holder).await?.spec.unwrap_or_default();
        let node_port = spec.ports.iter().flatten().find_map(|port| u16::try_from(port.node_port?).ok());
        let node_port = node_port.ok_or_else(|| Failure::Unmet("no nodePort was given".to_owned()))?;
        let wanting = service("wanting").tcp(node_port);
        namespace.apply(&wanting).await?;
        namespace
            .warned(&wanting, "PortConflict", &["nodePort", &format!("{}/holder", namespace.name())])
            .await
    })
    .await
}

#[tokio::test]
async fn a_port_that_another_pod_holds_is_explained_and_taken_when_that_goes() -> Result<(), Failure> {
    test(async |namespace| {
        namespace.backend().await?;
        let [port] = namespace.ports().await?;
        let nodes = namespace.cluster().nodes().await?;
        namespace.hold_port("holder", &nodes[0].name, port).await?;
        let web = service("web").tcp(port).proxy_mode().on(&[&nodes[0].name]);
        namespace.apply(&web).await?;
        namespace.warned(&web, "ProxiesNotReady", &["free ports", "another pod"]).await?;
        let target = Target { protocol: Protocol::Tcp, host: nodes[0].addresses[0], port };
        namespace.cluster().ask(&[target]).await?;
        namespace.let_port_go("holder").await?;
        namespace.exposed_on(&web, std::slice::from_ref(&nodes[0])).await.map(drop)
    })
    .await
}

#[tokio::test]
async fn while_proxies_are_rolled_out_or_restarted_no_port_of_theirs_goes_to_a_service_that_waits_for_it()
-> Result<(), Failure> {
    test(async |namespace| {
        namespace.backend().await?;
        let [port, first, second, third] = namespace.ports().await?;
        let mut older = service("older").tcp(port).proxy_mode();
        let waiting = service("waiting").tcp(port).proxy_mode();
        namespace.apply(&older).await?;
        namespace.exposed(&older).await?;
        namespace.apply_after(&older, &waiting).await?;
        namespace.warned(&waiting, "PortConflict", &[&format!("{}/older", namespace.name())]).await?;
        let rollouts = async {
            for more in [first, second, third] {
                let before = namespace.rolled_out(&older).await?.metadata.generation;
                older = older.clone().tcp(more);
                namespace.apply(&older).await?;
                eventually("the proxies change", async || {
                    let now = namespace.daemonset(&older).await?.metadata.generation;
                    ensure(now > before, || format!("generation {now:?}"))
                })
                .await?;
            }
            namespace.rolled_out(&older).await?;
            // All at once, so that nothing holds the port on any node.
            namespace.restart_proxies(&older).await?;
            namespace.rolled_out(&older).await?;
            namespace.exposed(&older).await
        };
        let looking = async {
            loop {
                let (made, pods) = (
                    namespace.daemonsets(&waiting).await?.len(),
                    namespace.proxy_pods(&waiting).await?.len(),
                );
                same("DaemonSets and pods of the Service that waits", &(made, pods), &(0, 0))?;
            }
        };
        tokio::select! {
            done = rollouts => done.map(drop),
            seen = looking => seen,
        }
    })
    .await
}

//! Where proxies run, and by what: as annotations say.

use akrobateo_core::annotations::{ADDRESS_TYPES, REPLICAS, TOLERATIONS, WORKLOAD};
use e2e::{Failure, eventually, same, service, test};

#[tokio::test]
async fn proxies_run_on_the_chosen_nodes_and_everywhere_once_none_are_chosen() -> Result<(), Failure> {
    test(async |namespace| {
        namespace.backend().await?;
        let [port] = namespace.ports().await?;
        let nodes = namespace.cluster().nodes().await?;
        let [first, second, ..] = &nodes[..] else {
            return Err(Failure::Unmet("fewer than two nodes".to_owned()));
        };
        let web = service("web").tcp(port).proxy_mode().on(&[&first.name]);
        namespace.apply(&web).await?;
        namespace.exposed_on(&web, std::slice::from_ref(first)).await?;
        let web = web.on(&[&second.name]).annotation(TOLERATIONS, "[{key: dedicated, operator: Exists}]");
        namespace.apply(&web).await?;
        namespace.exposed_on(&web, std::slice::from_ref(second)).await?;
        let everywhere = service("web").tcp(port).proxy_mode();
        namespace.apply(&everywhere).await?;
        namespace.exposed(&everywhere).await.map(drop)
    })
    .await
}

#[tokio::test]
async fn a_service_that_no_node_may_serve_says_so() -> Result<(), Failure> {
    test(async |namespace| {
        let [port] = namespace.ports().await?;
        let web = service("web").tcp(port).on(&["nowhere"]);
        namespace.apply(&web).await?;
        namespace.warned(&web, "NoNodes", &["no node matches the node selector"]).await
    })
    .await
}

#[tokio::test]
async fn a_deployment_has_as_many_proxies_as_it_is_told_and_switching_leaves_nothing_behind()
-> Result<(), Failure> {
    test(async |namespace| {
        namespace.backend().await?;
        let [port] = namespace.ports().await?;
        let web = service("web").tcp(port).udp(port).proxy_mode();
        namespace.apply(&web).await?;
        namespace.exposed(&web).await?;
        let deployed = web.clone().annotation(WORKLOAD, "Deployment").annotation(REPLICAS, "2");
        namespace.apply(&deployed).await?;
        let nodes = eventually("two proxies on two nodes, and no DaemonSet", async || {
            same("DaemonSets", &namespace.daemonsets(&web).await?.len(), &0)?;
            let addresses = namespace.proxy_addresses(&web).await?;
            same("nodes with a proxy", &addresses.len(), &2)?;
            let nodes = namespace.cluster().nodes().await?.into_iter();
            Ok(nodes.filter(|node| addresses.contains_key(&node.name)).collect::<Vec<_>>())
        })
        .await?;
        namespace.exposed_on(&deployed, &nodes).await?;
        namespace.apply(&web).await?;
        namespace.exposed(&web).await?;
        eventually("no Deployment is left", async || {
            same("Deployments", &namespace.deployments(&web).await?.len(), &0)
        })
        .await
    })
    .await
}

#[tokio::test]
async fn where_nodes_have_no_address_of_the_kind_that_is_asked_for_the_service_says_so() -> Result<(), Failure>
{
    test(async |namespace| {
        let [port] = namespace.ports().await?;
        let web = service("web").tcp(port).annotation(ADDRESS_TYPES, "ExternalIP");
        namespace.apply(&web).await?;
        namespace.warned(&web, "NoAddresses", &["no IPv4 address of type ExternalIP"]).await?;
        let web = web.annotation(ADDRESS_TYPES, "ExternalIP,InternalIP");
        namespace.apply(&web).await?;
        eventually("the internal addresses will do", async || {
            same(
                "addresses",
                &namespace.published(&web).await?.len(),
                &namespace.cluster().nodes().await?.len(),
            )
        })
        .await
    })
    .await
}

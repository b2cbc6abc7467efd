//! What is no longer asked for is taken away, whatever the way in which it ended.

use e2e::{Failure, ensure, eventually, same, service, targets, test};
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use kube::api::DeleteParams;

#[tokio::test]
async fn a_deleted_services_proxies_go() -> Result<(), Failure> {
    test(async |namespace| {
        namespace.backend().await?;
        let [port] = namespace.ports().await?;
        let web = service("web").tcp(port).udp(port);
        namespace.apply(&web).await?;
        let replies = namespace.exposed(&web).await?;
        namespace.delete(&web).await?;
        namespace.withdrawn(&web).await?;
        let targets: Vec<_> = replies.iter().map(|reply| reply.target).collect();
        namespace.unreachable(&targets).await
    })
    .await
}

#[tokio::test]
async fn the_proxies_of_a_deleted_namespace_go() -> Result<(), Failure> {
    test(async |namespace| {
        let doomed = namespace.another("doomed").await?;
        let [port] = doomed.ports().await?;
        let web = service("web").tcp(port);
        doomed.apply(&web).await?;
        doomed.rolled_out(&web).await?;
        let api: Api<Namespace> = Api::all(namespace.cluster().client.clone());
        api.delete(doomed.name(), &DeleteParams::default()).await?;
        doomed.withdrawn(&web).await
    })
    .await
}

#[tokio::test]
async fn a_service_that_becomes_a_cluster_ip_loses_its_proxies_and_addresses() -> Result<(), Failure> {
    test(async |namespace| {
        namespace.backend().await?;
        let [port] = namespace.ports().await?;
        let web = service("web").tcp(port);
        namespace.apply(&web).await?;
        let addresses: Vec<_> =
            namespace.exposed(&web).await?.iter().map(|reply| reply.target.host).collect();
        let internal = web.clone().cluster_ip();
        namespace.apply(&internal).await?;
        namespace.withdrawn(&internal).await?;
        namespace.unreachable(&targets(&web, &addresses)).await?;
        namespace.apply(&web).await?;
        namespace.exposed(&web).await.map(drop)
    })
    .await
}

#[tokio::test]
async fn a_service_of_somebody_elses_class_is_left_alone() -> Result<(), Failure> {
    test(async |namespace| {
        namespace.backend().await?;
        let [port] = namespace.ports().await?;
        let web = service("web").tcp(port);
        namespace.apply(&web).await?;
        namespace.exposed(&web).await?;
        // The API server lets nobody change the class of a Service that stays a LoadBalancer.
        namespace.delete(&web).await?;
        namespace.apply(&web.clone().class("example.com/other")).await?;
        namespace.withdrawn(&web).await?;
        namespace.operator_caught_up().await?;
        same("DaemonSets", &namespace.daemonsets(&web).await?.len(), &0)?;
        same("addresses", &namespace.published(&web).await?, &vec![])
    })
    .await
}

#[tokio::test]
async fn a_service_that_is_deleted_and_made_again_at_once_works() -> Result<(), Failure> {
    test(async |namespace| {
        namespace.backend().await?;
        let [port] = namespace.ports().await?;
        let web = service("web").tcp(port).proxy_mode();
        namespace.apply(&web).await?;
        namespace.exposed(&web).await?;
        for _ in 0..3 {
            namespace.delete(&web).await?;
            namespace.apply(&web).await?;
        }
        let cluster_ip = namespace.service(&web).await?.spec.and_then(|spec| spec.cluster_ip);
        let target = format!("={}:{port}", cluster_ip.expect("a ClusterIP"));
        eventually("the proxies forward to the new Service", async || {
            let daemonset = namespace.daemonset(&web).await?;
            let pod = daemonset.spec.and_then(|spec| spec.template.spec).unwrap_or_default();
            let args = pod.containers[0].args.clone().unwrap_or_default();
            ensure(args.iter().any(|arg| arg.ends_with(&target)), || format!("{args:?}, not {target}"))
        })
        .await?;
        namespace.rolled_out(&web).await?;
        let replies = namespace.exposed(&web).await?;
        namespace.came_through_proxies(&web, &replies).await
    })
    .await
}

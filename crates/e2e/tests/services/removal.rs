//! Cleanup of the proxies and addresses of Services that are deleted or no longer eligible.

use e2e::{
    Failure, build_targets, ensure, ensure_eq, eventually, exposed_service_test,
    exposed_service_test_in_dedicated_mode, service, test_in_dedicated_mode,
};
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use kube::api::DeleteParams;

#[tokio::test]
async fn deleted_service_loses_its_proxies_and_does_not_answer() -> Result<(), Failure> {
    exposed_service_test(
        |port| service("web").tcp(port).udp(port),
        async |namespace, web| {
            let addresses = namespace.published_addresses(&web).await?;
            namespace.delete_service(&web).await?;
            namespace.wait_cleaned_up(&web).await?;
            namespace.wait_unreachable(&build_targets(&web, &addresses)).await
        },
    )
    .await
}

#[tokio::test]
async fn operator_removes_the_proxies_of_a_deleted_namespace() -> Result<(), Failure> {
    test_in_dedicated_mode(async |namespace| {
        let deleted_namespace = namespace.create_another_namespace("deleted").await?;
        let [port] = deleted_namespace.allocate_ports().await?;
        let web = service("web").tcp(port);
        deleted_namespace.apply(&web).await?;
        deleted_namespace.wait_published(&web, &namespace.cluster().list_nodes().await?).await?;
        let api: Api<Namespace> = Api::all(namespace.cluster().client.clone());
        api.delete(deleted_namespace.name(), &DeleteParams::default()).await?;
        deleted_namespace.wait_cleaned_up(&web).await
    })
    .await
}

#[tokio::test]
async fn service_that_changes_to_type_cluster_ip_loses_its_proxies_and_addresses() -> Result<(), Failure> {
    exposed_service_test(
        |port| service("web").tcp(port),
        async |namespace, web| {
            let addresses = namespace.published_addresses(&web).await?;
            let cluster_ip_service = web.clone().with_type_cluster_ip();
            namespace.apply(&cluster_ip_service).await?;
            namespace.wait_cleaned_up(&cluster_ip_service).await?;
            namespace.wait_unreachable(&build_targets(&web, &addresses)).await?;
            namespace.expose(&web).await.map(drop)
        },
    )
    .await
}

#[tokio::test]
async fn operator_ignores_a_service_of_another_class() -> Result<(), Failure> {
    exposed_service_test(
        |port| service("web").tcp(port),
        async |namespace, web| {
            // The API server rejects a change of the class of a LoadBalancer Service, so the test replaces the Service.
            namespace.delete_service(&web).await?;
            namespace.apply(&web.clone().class("example.com/other")).await?;
            namespace.wait_cleaned_up(&web).await?;
            namespace.wait_operator_synced().await?;
            ensure_eq("number of DaemonSets", &namespace.list_daemonsets(&web).await?.len(), &0)?;
            ensure_eq("published addresses", &namespace.published_addresses(&web).await?, &vec![])
        },
    )
    .await
}

#[tokio::test]
async fn recreated_service_gets_proxies_with_its_new_cluster_ip() -> Result<(), Failure> {
    exposed_service_test_in_dedicated_mode(
        |port| service("web").tcp(port).with_ip_mode_proxy(),
        async |namespace, web| {
            for _ in 0..3 {
                namespace.delete_service(&web).await?;
                namespace.apply(&web).await?;
            }
            let cluster_ip = namespace.get_service(&web).await?.spec.and_then(|spec| spec.cluster_ip);
            let cluster_ip = cluster_ip.expect("the Service has a ClusterIP");
            let forward_suffix = format!("={cluster_ip}:{}", web.ports()[0].port());
            eventually("the proxies forward to the new ClusterIP", async || {
                let daemonset = namespace.get_daemonset(&web).await?;
                let pod = daemonset.spec.and_then(|spec| spec.template.spec).unwrap_or_default();
                let args = pod.containers[0].args.clone().unwrap_or_default();
                ensure(args.iter().any(|arg| arg.ends_with(&forward_suffix)), || {
                    format!("the arguments are {args:?}, expected one that ends with {forward_suffix}")
                })
            })
            .await?;
            namespace.wait_rolled_out(&web).await?;
            let replies = namespace.wait_exposed(&web).await?;
            namespace.ensure_answers_through_proxies(&web, &replies).await
        },
    )
    .await
}

//! An operator that watches only one namespace.

use e2e::{Failure, LocalOperator, ensure_eq, fault_test_in_dedicated_mode, service};
use kube::ResourceExt;

#[tokio::test]
async fn operator_serves_only_the_watched_namespace() -> Result<(), Failure> {
    fault_test_in_dedicated_mode(async |namespace, faults| {
        namespace.start_backend().await?;
        let unwatched_namespace = namespace.create_another_namespace("unwatched").await?;
        let proxies_namespace = namespace.create_another_namespace("proxies").await?;
        let [web_port, ignored_port] = namespace.allocate_ports().await?;
        let web = service("web").tcp(web_port).with_ip_mode_proxy();
        let ignored_service = service("ignored").tcp(ignored_port);
        // The deployed operator must stop, because it watches all namespaces.
        faults.operator.stop().await?;
        unwatched_namespace.apply(&ignored_service).await?;
        let operator = LocalOperator::start(namespace, &[("LB_NAMESPACE", proxies_namespace.name())])?;
        let replies = namespace.expose(&web).await?;
        namespace.ensure_answers_through_proxies(&web, &replies).await?;
        ensure_eq(
            "namespace of the proxies",
            &namespace.get_daemonset(&web).await?.namespace().as_deref(),
            &Some(proxies_namespace.name()),
        )?;
        let daemonsets = unwatched_namespace.list_daemonsets(&ignored_service).await?;
        ensure_eq("number of DaemonSets of the unwatched Service", &daemonsets.len(), &0)?;
        let addresses = unwatched_namespace.published_addresses(&ignored_service).await?;
        ensure_eq("published addresses of the unwatched Service", &addresses, &vec![])?;
        namespace.delete_service(&web).await?;
        namespace.wait_cleaned_up(&web).await?;
        drop(operator);
        Ok(())
    })
    .await
}

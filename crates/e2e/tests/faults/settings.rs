//! Operators that are told otherwise than by default: which Services they serve, where proxies live, what is published.

use e2e::{Failure, LocalOperator, eventually, fault_test, same, service};
use kube::ResourceExt;

#[tokio::test]
async fn where_it_is_not_the_default_an_operator_serves_its_own_class_only() -> Result<(), Failure> {
    fault_test(async |namespace, faults| {
        namespace.backend().await?;
        let [mine, theirs] = namespace.ports().await?;
        faults.operator.stop().await?;
        let _operator = LocalOperator::start(namespace, &[("DEFAULT_CLASS", "false")])?;
        let other = service("other").tcp(theirs);
        let web = service("web").tcp(mine).class(akrobateo_core::LOAD_BALANCER_CLASS);
        namespace.apply(&other).await?;
        namespace.apply(&web).await?;
        namespace.exposed(&web).await?;
        same("DaemonSets", &namespace.daemonsets(&other).await?.len(), &0)?;
        same("addresses", &namespace.published(&other).await?, &vec![])
    })
    .await
}

#[tokio::test]
async fn beside_its_service_a_proxy_is_owned_by_it_and_goes_with_it_even_without_an_operator()
-> Result<(), Failure> {
    fault_test(async |namespace, faults| {
        namespace.backend().await?;
        let [port] = namespace.ports().await?;
        let web = service("web").tcp(port).proxy_mode();
        faults.operator.stop().await?;
        let operator = LocalOperator::start(namespace, &[("LB_NAMESPACE", "@service")])?;
        let uid = namespace.apply(&web).await?.uid();
        let replies = namespace.exposed(&web).await?;
        namespace.came_through_proxies(&web, &replies).await?;
        let daemonset = namespace.daemonset(&web).await?;
        same("its namespace", &daemonset.namespace().as_deref(), &Some(namespace.name()))?;
        same("its name", &daemonset.name_any().as_str(), &"akrobateo-web")?;
        let owner = daemonset.owner_references().first().map(|owner| owner.uid.clone());
        same("its owner", &owner, &uid)?;
        drop(operator);
        namespace.delete(&web).await?;
        namespace.withdrawn(&web).await
    })
    .await
}

#[tokio::test]
async fn when_lb_namespace_is_changed_the_proxies_move_and_none_is_left_behind() -> Result<(), Failure> {
    fault_test(async |namespace, faults| {
        namespace.backend().await?;
        let [port, gone] = namespace.ports().await?;
        let (old, new) = (namespace.another("old").await?, namespace.another("new").await?);
        let web = service("web").tcp(port).proxy_mode();
        let orphan = service("orphan").tcp(gone);
        faults.operator.stop().await?;
        let operator = LocalOperator::start(namespace, &[("LB_NAMESPACE", old.name())])?;
        namespace.apply(&web).await?;
        namespace.apply(&orphan).await?;
        namespace.exposed(&web).await?;
        namespace.exposed(&orphan).await?;
        drop(operator);
        namespace.delete(&orphan).await?;

        let _operator = LocalOperator::start(namespace, &[("LB_NAMESPACE", new.name())])?;
        eventually("the only DaemonSet is in the new namespace", async || {
            let daemonset = namespace.daemonset(&web).await?;
            same("its namespace", &daemonset.namespace().as_deref(), &Some(new.name()))
        })
        .await?;
        namespace.rolled_out(&web).await?;
        namespace.exposed(&web).await?;
        namespace.withdrawn(&orphan).await
    })
    .await
}

#[tokio::test]
async fn where_kube_proxy_runs_in_ipvs_mode_it_is_kept_from_the_nodes_addresses() -> Result<(), Failure> {
    fault_test(async |namespace, faults| {
        namespace.backend().await?;
        let [port, chosen] = namespace.ports().await?;
        faults.kube_proxy_mode("ipvs").await?;
        faults.operator.restart().await?;
        // Without the annotation; the builder says which mode is expected.
        let web = service("web").tcp(port).published_as("Proxy");
        namespace.apply(&web).await?;
        let replies = namespace.exposed(&web).await?;
        namespace.came_through_proxies(&web, &replies).await?;
        let own = service("own").tcp(chosen).annotation(akrobateo_core::annotations::IP_MODE, "VIP");
        namespace.apply(&own).await?;
        namespace.exposed(&own).await.map(drop)
    })
    .await
}

//! An operator on a developer's machine, for one namespace.

use e2e::{Failure, LocalOperator, fault_test, same, service};
use kube::ResourceExt;

#[tokio::test]
async fn an_operator_with_namespaces_of_its_own_serves_the_one_and_puts_proxies_into_the_other()
-> Result<(), Failure> {
    fault_test(async |namespace, faults| {
        namespace.backend().await?;
        let (unwatched, proxies) =
            (namespace.another("unwatched").await?, namespace.another("proxies").await?);
        let [mine, theirs] = namespace.ports().await?;
        let web = service("web").tcp(mine).proxy_mode();
        let other = service("other").tcp(theirs);
        // The deployed operator serves all namespaces.
        faults.operator.stop().await?;
        unwatched.apply(&other).await?;
        let operator = LocalOperator::start(namespace, &[("LB_NAMESPACE", proxies.name())])?;
        namespace.apply(&web).await?;
        let replies = namespace.exposed(&web).await?;
        namespace.came_through_proxies(&web, &replies).await?;
        same(
            "where the proxies are",
            &namespace.daemonset(&web).await?.namespace(),
            &Some(proxies.name().to_owned()),
        )?;
        same("DaemonSets for the other namespace", &unwatched.daemonsets(&other).await?.len(), &0)?;
        same("its addresses", &unwatched.published(&other).await?, &vec![])?;
        namespace.delete(&web).await?;
        namespace.withdrawn(&web).await?;
        drop(operator);
        Ok(())
    })
    .await
}

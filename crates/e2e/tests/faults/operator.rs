//! The operator is away, or dies: what it has set up stays, and what it has missed is put right.

use e2e::{Failure, ensure, eventually, fault_test, same, service, targets};

#[tokio::test]
async fn what_changed_while_the_operator_was_away_is_put_right() -> Result<(), Failure> {
    fault_test(async |namespace, faults| {
        namespace.backend().await?;
        let [kept, changed, added, deleted, internal, created] = namespace.ports().await?;
        let steady = service("kept").tcp(kept).proxy_mode();
        let growing = service("changed").tcp(changed);
        let leaving = service("deleted").tcp(deleted);
        let retiring = service("internal").tcp(internal);
        let before = [&steady, &growing, &leaving, &retiring];
        for service in before {
            namespace.apply(service).await?;
        }
        let mut replies = Vec::new();
        for service in before {
            replies.push(namespace.exposed(service).await?);
        }
        let addresses: Vec<_> = replies[0].iter().map(|reply| reply.target.host).collect();

        faults.operator.stop().await?;
        let growing = growing.udp(added);
        let retired = retiring.clone().cluster_ip();
        let new = service("created").tcp(created).proxy_mode();
        namespace.apply(&growing).await?;
        namespace.delete(&leaving).await?;
        namespace.apply(&retired).await?;
        namespace.apply(&new).await?;
        namespace.exposed(&steady).await?;
        same("DaemonSets for a new Service", &namespace.daemonsets(&new).await?.len(), &0)?;

        faults.operator.start().await?;
        namespace.exposed(&growing).await?;
        namespace.exposed(&new).await?;
        namespace.withdrawn(&leaving).await?;
        namespace.withdrawn(&retired).await?;
        namespace.unreachable(&targets(&leaving, &addresses)).await?;
        namespace.unreachable(&targets(&retiring, &addresses)).await?;
        namespace.exposed(&steady).await.map(drop)
    })
    .await
}

#[tokio::test]
async fn an_operator_that_is_killed_again_and_again_leaves_nothing_half_done() -> Result<(), Failure> {
    fault_test(async |namespace, faults| {
        namespace.backend().await?;
        let ports: [u16; 5] = namespace.ports().await?;
        let [doomed] = namespace.ports().await?;
        let mut web = service("web").proxy_mode();
        for (round, port) in ports.into_iter().enumerate() {
            let passing = service(&format!("passing-{round}")).tcp(doomed);
            web = web.tcp(port).udp(port);
            namespace.apply(&web).await?;
            namespace.apply(&passing).await?;
            faults.operator.kill().await?;
            eventually("the next operator has begun", async || {
                let running = faults.operator.pods().await?.iter().any(|pod| {
                    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
                    phase == Some("Running") && pod.metadata.deletion_timestamp.is_none()
                });
                ensure(running, || "no pod of it runs".to_owned())
            })
            .await?;
            namespace.delete(&passing).await?;
        }
        faults.operator.ready().await?;
        eventually("the proxies have the last ports", async || {
            let held = namespace.daemonset(&web).await?.spec.and_then(|spec| spec.template.spec);
            let ports = held.map(|pod| pod.containers[0].ports.iter().flatten().count());
            same("ports of the proxies", &ports, &Some(web.ports().len()))
        })
        .await?;
        namespace.rolled_out(&web).await?;
        let replies = namespace.exposed(&web).await?;
        namespace.came_through_proxies(&web, &replies).await?;
        for round in 0..ports.len() {
            namespace.withdrawn(&service(&format!("passing-{round}"))).await?;
        }
        Ok(())
    })
    .await
}

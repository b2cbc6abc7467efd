//! Two replicas of the operator: one works, the other takes over.

use std::time::Instant;

use e2e::{Failure, fault_test, service};

#[tokio::test]
async fn of_two_replicas_the_other_takes_over_from_a_killed_leader_and_no_change_is_lost()
-> Result<(), Failure> {
    fault_test(async |namespace, faults| {
        namespace.backend().await?;
        let [kept, grown, deleted, created] = namespace.ports().await?;
        let growing = service("growing").tcp(kept).proxy_mode();
        let leaving = service("leaving").tcp(deleted);
        let new = service("new").tcp(created).proxy_mode();
        faults.operator.replicas(2).await?;
        namespace.apply(&growing).await?;
        namespace.apply(&leaving).await?;
        namespace.exposed(&growing).await?;
        namespace.exposed(&leaving).await?;

        let leader = faults.operator.leader().await?;
        let growing = growing.udp(grown);
        namespace.apply(&growing).await?;
        namespace.delete(&leaving).await?;
        faults.crash_operator(&leader).await?;
        let killed = Instant::now();
        namespace.apply(&new).await?;
        faults.operator.next_leader(&leader).await?;
        eprintln!("took over {:.1} s after the leader was killed", killed.elapsed().as_secs_f32());
        namespace.exposed(&growing).await?;
        namespace.exposed(&new).await?;
        namespace.withdrawn(&leaving).await
    })
    .await
}

#[tokio::test]
async fn a_leader_that_ends_in_peace_hands_over_at_once() -> Result<(), Failure> {
    fault_test(async |namespace, faults| {
        let [port] = namespace.ports().await?;
        faults.operator.replicas(2).await?;
        let leader = faults.operator.leader().await?;
        let told = Instant::now();
        faults.operator.end_pod(&leader).await?;
        faults.operator.next_leader(&leader).await?;
        eprintln!("took over {:.1} s after the leader was told to end", told.elapsed().as_secs_f32());
        let web = service("web").tcp(port);
        namespace.apply(&web).await?;
        namespace.rolled_out(&web).await.map(drop)
    })
    .await
}

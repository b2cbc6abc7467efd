//! The operator has exactly the rights that it uses. Runs after all other tests: they are what uses them.

use std::collections::BTreeSet;

use e2e::{Failure, Right, Rights, audit, eventually, fault_test, same};

fn right(group: &str, resource: &str, verb: &str) -> Right {
    Right { group: group.to_owned(), resource: resource.to_owned(), verb: verb.to_owned() }
}

/// What a request needs the right to.
fn needed(request: &audit::Request) -> Vec<Right> {
    let of = |verb| right(&request.group, &request.resource, verb);
    // Server-side apply of what does not exist yet is authorized as a patch, and then as a create.
    let creates = request.verb == "patch" && request.code == 201;
    [of(&request.verb)].into_iter().chain(creates.then(|| of("create"))).collect()
}

#[tokio::test]
async fn the_operator_uses_every_right_that_it_has_and_asks_for_no_other() -> Result<(), Failure> {
    fault_test(async |namespace, faults| {
        let rights = Rights::of_the_operator(&namespace.cluster().client).await?;
        assert!(!rights.granted.is_empty(), "no role is bound to the operator");
        // Watches are logged when they end.
        faults.operator.restart().await?;
        eventually("every right has been used", async || {
            let requests = audit::requests()?.into_iter().filter(|request| request.at >= rights.since);
            let used: BTreeSet<Right> = requests.filter(|r| r.allowed).flat_map(|r| needed(&r)).collect();
            let unused: Vec<_> = rights.granted.difference(&used).collect();
            same("rights that were never used", &unused, &vec![])
        })
        .await?;
        let denied: Vec<_> =
            audit::requests()?.into_iter().filter(|r| r.at >= rights.since && r.forbidden).collect();
        assert!(denied.is_empty(), "denied: {denied:?}");
        Ok(())
    })
    .await
}

//! externalTrafficPolicy Local: the client's address is kept, and only nodes with an endpoint answer.

use e2e::{Failure, ensure, service, targets, test};

#[tokio::test]
async fn with_policy_local_only_the_endpoints_node_answers_and_the_backend_sees_the_client()
-> Result<(), Failure> {
    test(async |namespace| {
        let nodes = namespace.cluster().nodes().await?;
        let [with, without @ ..] = &nodes[..] else { return Err(Failure::Unmet("no nodes".to_owned())) };
        let [port] = namespace.ports().await?;
        let web = service("web").families(&["IPv4", "IPv6"]).tcp(port).udp(port).local();
        namespace.apply(&web).await?;
        namespace.warned(&web, "NoEndpoints", &["no node has a ready endpoint"]).await?;
        namespace.backend_on(&with.name).await?;
        let replies = namespace.exposed_on(&web, std::slice::from_ref(with)).await?;
        for reply in &replies {
            let seen = reply.outcome.as_ref().map(|answer| answer.client.ip()).ok();
            ensure(seen == reply.from, || {
                format!("{}: the backend saw {seen:?}, not {:?}", reply.target, reply.from)
            })?;
        }
        let others: Vec<_> = without.iter().flat_map(|node| node.addresses.iter().copied()).collect();
        namespace.unreachable(&targets(&web, &others)).await
    })
    .await
}

#[tokio::test]
async fn where_the_clients_address_cannot_be_kept_a_warning_says_why() -> Result<(), Failure> {
    test(async |namespace| {
        let nodes = namespace.cluster().nodes().await?;
        namespace.backend_on(&nodes[0].name).await?;
        let [port] = namespace.ports().await?;
        let web = service("web").tcp(port).local().proxy_mode();
        namespace.apply(&web).await?;
        namespace.exposed_on(&web, std::slice::from_ref(&nodes[0])).await?;
        namespace.warned(&web, "ClientAddressNotKept", &["instead of the client's", "ipMode Proxy"]).await
    })
    .await
}

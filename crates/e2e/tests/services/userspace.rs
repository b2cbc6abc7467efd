//! Proxies in userspace: backends are told the client's address by the PROXY protocol, and no right is needed.

use std::net::SocketAddr;

use akrobateo_core::annotations::{DATA_PATH, PROXY_PROTOCOL};
use e2e::{Failure, Namespace, Server, ServiceBuilder, eventually, same, service, targets, test};

/// Every node's address leads to a server that returns and logs the outside client's own address.
async fn shows_the_client(namespace: &Namespace, web: &ServiceBuilder) -> Result<(), Failure> {
    namespace.apply(web).await?;
    let nodes = namespace.cluster().nodes().await?;
    let addresses = namespace.published_for(web, &nodes).await?;
    let port = web.ports()[0].port();
    for address in addresses {
        let address = SocketAddr::new(address, port);
        let client = eventually("the server sees the client", async || {
            let (seen, client) = namespace.client_seen_at(address).await?;
            same("the client's address", &seen, &client)?;
            Ok(client)
        })
        .await?;
        eventually("the server has logged the client", async || {
            let log = namespace.server_log().await?;
            e2e::ensure(log.lines().any(|line| line == format!("client={client}")), || log)
        })
        .await?;
    }
    Ok(())
}

async fn servers_see_clients(server: Server) -> Result<(), Failure> {
    test(async |namespace| {
        namespace.server(server).await?;
        let [port] = namespace.ports().await?;
        let web = service("web").families(&["IPv4", "IPv6"]).tcp(port).published_as("Proxy");
        shows_the_client(namespace, &web.clone().annotation(PROXY_PROTOCOL, "v1")).await?;
        let only = format!("v2:{port}");
        shows_the_client(namespace, &web.annotation(PROXY_PROTOCOL, &only)).await
    })
    .await
}

#[tokio::test]
async fn nginx_returns_and_logs_the_clients_address_from_every_nodes_address_with_policy_cluster()
-> Result<(), Failure> {
    servers_see_clients(Server::Nginx).await
}

#[tokio::test]
async fn haproxy_returns_and_logs_the_clients_address_from_every_nodes_address_with_policy_cluster()
-> Result<(), Failure> {
    servers_see_clients(Server::Haproxy).await
}

#[tokio::test]
async fn a_live_service_may_be_switched_to_userspace_and_back_and_is_told_so() -> Result<(), Failure> {
    test(async |namespace| {
        namespace.backend().await?;
        let [port] = namespace.ports().await?;
        let kernel = service("web").families(&["IPv4", "IPv6"]).tcp(port).udp(port).published_as("VIP");
        let userspace = kernel.clone().annotation(DATA_PATH, "userspace").published_as("Proxy");
        namespace.apply(&kernel).await?;
        namespace.exposed(&kernel).await?;
        let switches = [(&userspace, "userspace"), (&kernel, "kernel"), (&userspace, "userspace")];
        for (before, (switched, told)) in switches.into_iter().enumerate() {
            namespace.apply(switched).await?;
            eventually("the change of the path is told", async || {
                let mut events = namespace.events(switched).await?;
                events.retain(|event| event.reason.as_deref() == Some("DataPathChanged"));
                events.sort_by_key(|event| event.event_time.clone());
                let notes: Vec<_> = events.into_iter().map(|event| event.note.unwrap_or_default()).collect();
                let told = notes.last().is_some_and(|note| note.contains(told));
                e2e::ensure(told && notes.len() == before + 1, || format!("{notes:?}"))
            })
            .await?;
            namespace.rolled_out(switched).await?;
            namespace.exposed(switched).await?;
        }
        let replies = namespace.exposed(&userspace).await?;
        namespace.came_through_proxies(&userspace, &replies).await
    })
    .await
}

#[tokio::test]
async fn a_proxy_in_userspace_has_no_right_at_all_and_keeps_to_the_source_ranges() -> Result<(), Failure> {
    test(async |namespace| {
        namespace.backend().await?;
        let [open, shut] = namespace.ports().await?;
        let userspace = |name, port| {
            service(name).families(&["IPv4", "IPv6"]).tcp(port).udp(port).annotation(DATA_PATH, "userspace")
        };
        let all = ["172.29.0.0/24".to_owned(), "fd29::/64".to_owned()];
        let web = userspace("open", open).published_as("Proxy").source_ranges(&all);
        let none = userspace("shut", shut).published_as("Proxy").source_ranges(&["192.0.2.0/24".to_owned()]);
        namespace.apply(&web).await?;
        namespace.apply(&none).await?;
        let replies = namespace.exposed(&web).await?;
        namespace.came_through_proxies(&web, &replies).await?;
        let addresses = namespace.published_for(&none, &namespace.cluster().nodes().await?).await?;
        namespace.unreachable(&targets(&none, &addresses)).await?;
        for pod in namespace.proxy_pods(&web).await? {
            let spec = pod.spec.unwrap_or_default();
            same("init containers", &spec.init_containers, &None)?;
            let rights = spec.containers[0].security_context.clone().unwrap_or_default();
            let capabilities = rights.capabilities.unwrap_or_default();
            same(
                "capabilities",
                &(capabilities.add, capabilities.drop),
                &(None, Some(vec!["ALL".to_owned()])),
            )?;
            same(
                "non-root, read-only",
                &(rights.run_as_non_root, rights.read_only_root_filesystem),
                &(Some(true), Some(true)),
            )?;
        }
        Ok(())
    })
    .await
}

//! Proxies that forward in userspace: they can send the PROXY protocol, and need no capability.

use std::net::SocketAddr;

use akrobateo_core::annotations::{DATA_PATH, PROXY_PROTOCOL};
use e2e::{
    Failure, Namespace, ProxyProtocolServer, ServiceBuilder, build_targets, ensure, ensure_eq, eventually,
    exposed_service_test_in_dedicated_mode, service, test_in_dedicated_mode,
};

/// Sends a request to every node's address, and checks that the server returns and logs the client's address.
async fn check_client_address(namespace: &Namespace, web: &ServiceBuilder) -> Result<(), Failure> {
    namespace.apply(web).await?;
    let nodes = namespace.cluster().list_nodes().await?;
    let addresses = namespace.wait_published(web, &nodes).await?;
    let port = web.ports()[0].port();
    for address in addresses {
        let address = SocketAddr::new(address, port);
        let client = eventually("the server returns the client's address", async || {
            let (returned_address, client) = namespace.request_client_address(address).await?;
            ensure_eq("client address", &returned_address, &client)?;
            Ok(client)
        })
        .await?;
        eventually("the server logs the client's address", async || {
            let log = namespace.get_server_log().await?;
            ensure(log.lines().any(|line| line == format!("client={client}")), || {
                format!("expected a line client={client} in the log: {log}")
            })
        })
        .await?;
    }
    Ok(())
}

async fn check_client_address_at_server(server: ProxyProtocolServer) -> Result<(), Failure> {
    test_in_dedicated_mode(async |namespace| {
        namespace.start_server(server).await?;
        let [port] = namespace.allocate_ports().await?;
        let web = service("web").families(&["IPv4", "IPv6"]).tcp(port).expect_ip_mode("Proxy");
        check_client_address(namespace, &web.clone().annotation(PROXY_PROTOCOL, "v1")).await?;
        let proxy_protocol_annotation = format!("v2:{port}");
        check_client_address(namespace, &web.annotation(PROXY_PROTOCOL, &proxy_protocol_annotation)).await
    })
    .await
}

#[tokio::test]
async fn nginx_receives_the_client_address_by_proxy_protocol() -> Result<(), Failure> {
    check_client_address_at_server(ProxyProtocolServer::Nginx).await
}

#[tokio::test]
async fn haproxy_receives_the_client_address_by_proxy_protocol() -> Result<(), Failure> {
    check_client_address_at_server(ProxyProtocolServer::Haproxy).await
}

#[tokio::test]
async fn change_of_the_data_path_rolls_out_proxies_and_emits_an_event() -> Result<(), Failure> {
    test_in_dedicated_mode(async |namespace| {
        namespace.start_backend().await?;
        let [port] = namespace.allocate_ports().await?;
        let kernel_service =
            service("web").families(&["IPv4", "IPv6"]).tcp(port).udp(port).expect_ip_mode("VIP");
        let service_with_userspace =
            kernel_service.clone().annotation(DATA_PATH, "userspace").expect_ip_mode("Proxy");
        namespace.expose(&kernel_service).await?;
        let changes = [
            (&service_with_userspace, "userspace"),
            (&kernel_service, "kernel"),
            (&service_with_userspace, "userspace"),
        ];
        for (index, (service, data_path)) in changes.into_iter().enumerate() {
            namespace.apply(service).await?;
            // The API server has one object for equal events. This object counts the events.
            let expected_count = changes[..=index].iter().filter(|(_, path)| *path == data_path).count();
            eventually("an event has the new data path", async || {
                let mut events = namespace.list_events(service).await?;
                events.retain(|event| event.reason.as_deref() == Some("DataPathChanged"));
                events.retain(|event| event.note.as_deref().is_some_and(|note| note.contains(data_path)));
                let counts: Vec<_> = events
                    .iter()
                    .map(|event| event.series.as_ref().map_or(1, |series| series.count))
                    .collect();
                ensure_eq("counts of the events", &counts, &vec![i32::try_from(expected_count).unwrap()])
            })
            .await?;
            namespace.wait_rolled_out(service).await?;
            namespace.wait_exposed(service).await?;
        }
        // kube-proxy may answer for a moment after the change of the ipMode.
        eventually("the answers come through the proxies", async || {
            let replies = namespace.wait_exposed(&service_with_userspace).await?;
            namespace.ensure_answers_through_proxies(&service_with_userspace, &replies).await
        })
        .await
    })
    .await
}

fn build_userspace_service(name: &str, port: u16, source_ranges: &[&str]) -> ServiceBuilder {
    let source_ranges: Vec<_> = source_ranges.iter().map(|&range| range.to_owned()).collect();
    let service = service(name).families(&["IPv4", "IPv6"]).tcp(port).udp(port);
    service.annotation(DATA_PATH, "userspace").expect_ip_mode("Proxy").source_ranges(&source_ranges)
}

#[tokio::test]
async fn userspace_proxies_deny_clients_outside_the_source_ranges() -> Result<(), Failure> {
    exposed_service_test_in_dedicated_mode(
        |port| build_userspace_service("allowed", port, &["172.29.0.0/24", "fd29::/64"]),
        async |namespace, service_with_allowed_client| {
            let replies = namespace.wait_exposed(&service_with_allowed_client).await?;
            namespace.ensure_answers_through_proxies(&service_with_allowed_client, &replies).await?;
            let [port] = namespace.allocate_ports().await?;
            let service_with_denied_client = build_userspace_service("denied", port, &["192.0.2.0/24"]);
            namespace.apply(&service_with_denied_client).await?;
            let nodes = namespace.cluster().list_nodes().await?;
            let addresses = namespace.wait_published(&service_with_denied_client, &nodes).await?;
            namespace.wait_unreachable(&build_targets(&service_with_denied_client, &addresses)).await
        },
    )
    .await
}

#[tokio::test]
async fn userspace_proxy_pods_are_unprivileged() -> Result<(), Failure> {
    test_in_dedicated_mode(async |namespace| {
        let [port] = namespace.allocate_ports().await?;
        let web = build_userspace_service("web", port, &[]);
        namespace.apply(&web).await?;
        namespace.wait_rolled_out(&web).await?;
        for pod in namespace.list_proxy_pods(&web).await? {
            let spec = pod.spec.unwrap_or_default();
            ensure_eq("init containers", &spec.init_containers, &None)?;
            let context = spec.containers[0].security_context.clone().unwrap_or_default();
            let capabilities = context.capabilities.unwrap_or_default();
            ensure_eq("added capabilities", &capabilities.add, &None)?;
            ensure_eq("dropped capabilities", &capabilities.drop, &Some(vec!["ALL".to_owned()]))?;
            ensure_eq("runAsNonRoot", &context.run_as_non_root, &Some(true))?;
            ensure_eq("readOnlyRootFilesystem", &context.read_only_root_filesystem, &Some(true))?;
        }
        Ok(())
    })
    .await
}

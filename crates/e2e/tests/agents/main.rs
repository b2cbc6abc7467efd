//! Tests of failures: agents fail, or other programs delete objects of the agents. These tests change the agents of all
//! nodes, so no other test may run at the same time.

#![allow(missing_docs, reason = "tests")]

use e2e::backend::backend_pod;
use e2e::{
    Failure, Faults, build_targets, ensure_answers_during, ensure_client_address_kept, ensure_eq, eventually,
    fault_test_in_shared_mode, service,
};
use futures::future::try_join_all;

#[tokio::test]
async fn agents_restart_without_a_lost_connection() -> Result<(), Failure> {
    fault_test_in_shared_mode(async |namespace, faults| {
        namespace.start_backend().await?;
        let nodes = namespace.cluster().list_nodes().await?;
        let [port] = namespace.allocate_ports().await?;
        let web = service("web").families(&["IPv4", "IPv6"]).tcp(port).udp(port);
        let replies = namespace.expose(&web).await?;
        let targets: Vec<_> = replies.iter().map(|reply| reply.target).collect();
        let addresses = namespace.published_addresses(&web).await?;
        ensure_answers_during(namespace.cluster(), &targets, async || {
            faults.kill_container(&faults.agents.get_pod_on_node(&nodes[0].name).await?).await?;
            faults.agents.wait_rolled_out().await?;
            faults.agents.upgrade("2").await?;
            ensure_eq("published addresses", &namespace.published_addresses(&web).await?, &addresses)
        })
        .await?;
        namespace.wait_exposed(&web).await.map(drop)
    })
    .await
}

/// Returns the lines of the objects that the agent of this node has created, sorted. Indexes of devices are removed,
/// because the kernel gives a new device another index.
async fn list_routing_objects(faults: &Faults, node: &str) -> Result<Vec<String>, Failure> {
    let objects = faults.list_agent_objects(node).await?;
    let without_index = |line: &str| match line.split_once(": akr0") {
        Some((_, device)) => device.split(" mtu ").next().unwrap_or_default().to_owned(),
        None => line.to_owned(),
    };
    let mut lines: Vec<_> = objects.lines().map(without_index).collect();
    lines.sort();
    Ok(lines)
}

#[tokio::test]
async fn agents_restore_deleted_objects() -> Result<(), Failure> {
    fault_test_in_shared_mode(async |namespace, faults| {
        namespace.start_pod_on_every_node(&backend_pod()).await?;
        let nodes = namespace.cluster().list_nodes().await?;
        let [port] = namespace.allocate_ports().await?;
        let web = service("web").families(&["IPv4", "IPv6"]).tcp(port).udp(port);
        namespace.expose(&web).await?;
        let node = &nodes[0].name;
        let objects_before = list_routing_objects(faults, node).await?;
        faults.delete_agent_table(node).await?;
        faults.delete_agent_routing(node).await?;
        eventually("the node has all objects of the agent again", async || {
            ensure_eq("objects", &list_routing_objects(faults, node).await?, &objects_before)
        })
        .await?;
        let replies = namespace.wait_exposed(&web).await?;
        ensure_client_address_kept(&replies)
    })
    .await
}

/// The number of Services in the test of many Services.
const SERVICE_COUNT: usize = 200;

#[tokio::test]
async fn two_hundred_services_are_exposed_without_proxies() -> Result<(), Failure> {
    fault_test_in_shared_mode(async |namespace, _| {
        namespace.start_backend().await?;
        let ports: [u16; SERVICE_COUNT] = namespace.allocate_ports().await?;
        let nodes = namespace.cluster().list_nodes().await?;
        let services = ports.map(|port| service(&format!("web-{port}")).tcp(port).without_node_ports());
        try_join_all(services.iter().map(|service| namespace.apply(service))).await?;
        for service in &services {
            namespace.wait_published(service, &nodes).await?;
        }
        for service in &services {
            namespace.wait_exposed(service).await?;
        }
        ensure_eq("DaemonSets", &namespace.list_all_daemonsets().await?.len(), &0)
    })
    .await
}

#[tokio::test]
async fn agents_release_a_port_that_becomes_reserved() -> Result<(), Failure> {
    fault_test_in_shared_mode(async |namespace, faults| {
        namespace.start_backend().await?;
        let [port, reserved_port] = namespace.allocate_ports().await?;
        let web = service("web").tcp(port).udp(reserved_port);
        let replies = namespace.expose(&web).await?;
        let addresses: Vec<_> = replies.iter().map(|reply| reply.target.host).collect();
        faults.set_reserved_ports(Some(&format!("22,udp/{reserved_port}"))).await?;
        namespace.wait_warning(&web, "PortReserved", &[&format!("{reserved_port}/UDP"), "reserved"]).await?;
        namespace.wait_unreachable(&build_targets(&service("web").udp(reserved_port), &addresses)).await?;
        faults.set_reserved_ports(None).await?;
        namespace.wait_exposed(&web).await.map(drop)
    })
    .await
}

#[tokio::test]
async fn removed_agent_deletes_its_objects_on_the_node() -> Result<(), Failure> {
    fault_test_in_shared_mode(async |namespace, faults| {
        let nodes = namespace.cluster().list_nodes().await?;
        let [port] = namespace.allocate_ports().await?;
        let web = service("web").tcp(port).udp(port);
        namespace.start_backend_on(&nodes[0].name).await?;
        namespace.expose(&web).await?;
        faults.set_pool_label(&nodes[0].name, Some("agents")).await?;
        faults.agents.set_node_selector(Some((e2e::POOL_LABEL, "agents"))).await?;
        let result = async {
            namespace.wait_exposed_on(&web, &nodes[..1]).await?;
            eventually("the node has no objects of the agent", async || {
                let remaining_objects = faults.list_agent_objects(&nodes[1].name).await?;
                ensure_eq("objects of the agent", &remaining_objects, &String::new())
            })
            .await
        }
        .await;
        faults.agents.set_node_selector(None).await?;
        faults.agents.wait_rolled_out().await?;
        result?;
        namespace.wait_exposed(&web).await.map(drop)
    })
    .await
}

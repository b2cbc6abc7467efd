//! Tests of failures: agents, nodes or the API server fail, or other programs delete objects of the agents. These tests
//! change the agents of all nodes, so no other test may run at the same time.

#![allow(missing_docs, reason = "tests")]

use std::time::Duration;

use e2e::{
    Agents, Failure, consistently, ensure_answers_during, ensure_eq, eventually, service, shared_fault_test,
    targets,
};

#[tokio::test]
async fn agents_restart_without_a_lost_connection() -> Result<(), Failure> {
    shared_fault_test(async |namespace, faults| {
        namespace.start_backend().await?;
        let nodes = namespace.cluster().list_nodes().await?;
        let [port] = namespace.allocate_ports().await?;
        let web = service("web").families(&["IPv4", "IPv6"]).tcp(port).udp(port);
        let replies = namespace.expose(&web).await?;
        let targets: Vec<_> = replies.iter().map(|reply| reply.target).collect();
        let agents = Agents::new(namespace.cluster());
        let addresses = namespace.published_addresses(&web).await?;
        ensure_answers_during(namespace.cluster(), &targets, async || {
            faults.kill_container(&agents.pod_on(&nodes[0].name).await?).await?;
            agents.wait_rolled_out().await?;
            agents.upgrade("2").await?;
            ensure_eq("published addresses", &namespace.published_addresses(&web).await?, &addresses)
        })
        .await?;
        namespace.wait_exposed(&web).await.map(drop)
    })
    .await
}

#[tokio::test]
async fn agents_serve_during_an_api_server_outage() -> Result<(), Failure> {
    shared_fault_test(async |namespace, faults| {
        namespace.start_backend().await?;
        let nodes = namespace.cluster().list_nodes().await?;
        let [port] = namespace.allocate_ports().await?;
        let web = service("web").tcp(port).udp(port);
        let replies = namespace.expose(&web).await?;
        let targets: Vec<_> = replies.iter().map(|reply| reply.target).collect();
        faults.pause_api_server().await?;
        consistently(Duration::from_secs(40), "the Service answers", async || {
            let replies = namespace.cluster().send_requests(&targets).await?;
            replies.iter().try_for_each(|reply| reply.answer().map(drop))
        })
        .await?;
        faults.resume_api_server().await?;
        namespace.wait_published(&web, &nodes).await?;
        // The agents receive changes of Services again.
        namespace.apply(&web.clone().without_port(akrobateo_core::Protocol::Udp, port)).await?;
        let addresses = namespace.published_addresses(&web).await?;
        let udp_targets = udp_targets(port, &addresses);
        namespace.wait_unreachable(&udp_targets).await
    })
    .await
}

fn udp_targets(port: u16, addresses: &[std::net::IpAddr]) -> Vec<e2e::Target> {
    targets(&service("web").udp(port), addresses)
}

#[tokio::test]
async fn agents_restore_deleted_rules() -> Result<(), Failure> {
    shared_fault_test(async |namespace, faults| {
        namespace.start_backend().await?;
        let nodes = namespace.cluster().list_nodes().await?;
        let [port] = namespace.allocate_ports().await?;
        let web = service("web").tcp(port).udp(port);
        namespace.expose(&web).await?;
        for node in &nodes {
            faults.delete_agent_table(&node.name).await?;
        }
        namespace.wait_exposed(&web).await.map(drop)
    })
    .await
}

#[tokio::test]
async fn removed_agent_deletes_its_objects_on_the_node() -> Result<(), Failure> {
    shared_fault_test(async |namespace, faults| {
        let nodes = namespace.cluster().list_nodes().await?;
        let [port] = namespace.allocate_ports().await?;
        let web = service("web").tcp(port).udp(port);
        namespace.start_backend_on(&nodes[0].name).await?;
        namespace.expose(&web).await?;
        let agents = Agents::new(namespace.cluster());
        faults.set_pool_label(&nodes[0].name, Some("agents")).await?;
        agents.select_nodes(Some((e2e::POOL_LABEL, "agents"))).await?;
        let result = async {
            namespace.wait_exposed_on(&web, &nodes[..1]).await?;
            eventually("the node has no objects of the agent", async || {
                let remaining_objects = faults.list_agent_objects(&nodes[1].name).await?;
                ensure_eq("objects of the agent", &remaining_objects, &String::new())
            })
            .await
        }
        .await;
        agents.select_nodes(None).await?;
        agents.wait_rolled_out().await?;
        result?;
        namespace.wait_exposed(&web).await.map(drop)
    })
    .await
}

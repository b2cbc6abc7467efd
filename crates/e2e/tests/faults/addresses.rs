//! The annotations, taints and labels of the nodes determine the published addresses.

use std::net::IpAddr;
use std::time::Duration;

use akrobateo_core::annotations::{ADDRESS_TYPES, NODE_SELECTOR, REPLICAS};
use e2e::backend::backend_pod;
use e2e::{
    Failure, NodeAddresses, POOL_LABEL, consistently, ensure, ensure_eq, eventually, fault_test,
    fault_test_in_dedicated_mode, service,
};
use tokio::time::sleep;

#[tokio::test]
async fn node_annotation_overrides_the_published_addresses() -> Result<(), Failure> {
    fault_test(async |namespace, faults| {
        let nodes = namespace.cluster().list_nodes().await?;
        let [port] = namespace.allocate_ports().await?;
        let web = service("web").families(&["IPv4", "IPv6"]).tcp(port);
        namespace.apply(&web).await?;
        namespace.wait_published(&web, &nodes).await?;
        faults.override_addresses(&nodes[0].name, Some("203.0.113.7, 2001:db8::7, nonsense")).await?;
        let mut nodes_with_overridden_addresses = nodes.clone();
        nodes_with_overridden_addresses[0].addresses =
            vec!["203.0.113.7".parse().unwrap(), "2001:db8::7".parse().unwrap()];
        namespace.wait_published(&web, &nodes_with_overridden_addresses).await?;
        faults.override_addresses(&nodes[0].name, None).await?;
        namespace.wait_published(&web, &nodes).await.map(drop)
    })
    .await
}

#[tokio::test]
async fn node_with_the_cluster_autoscalers_deletion_taint_is_not_published() -> Result<(), Failure> {
    fault_test(async |namespace, faults| {
        let nodes = namespace.cluster().list_nodes().await?;
        let [port] = namespace.allocate_ports().await?;
        let web = service("web").tcp(port);
        namespace.apply(&web).await?;
        namespace.wait_published(&web, &nodes).await?;
        faults.set_deletion_taint(&nodes[1].name).await?;
        let other_nodes: Vec<NodeAddresses> = [&nodes[..1], &nodes[2..]].concat();
        namespace.wait_published(&web, &other_nodes).await?;
        faults.remove_deletion_taint(&nodes[1].name).await?;
        namespace.wait_published(&web, &nodes).await.map(drop)
    })
    .await
}

#[tokio::test]
async fn service_is_published_on_nodes_that_match_the_node_selector() -> Result<(), Failure> {
    fault_test(async |namespace, faults| {
        namespace.start_backend().await?;
        let nodes = namespace.cluster().list_nodes().await?;
        let [port] = namespace.allocate_ports().await?;
        let selector = format!("{POOL_LABEL} in (edge, dmz),{POOL_LABEL}!=off");
        let web = service("web").tcp(port).with_ip_mode_proxy().annotation(NODE_SELECTOR, &selector);
        namespace.apply(&web).await?;
        namespace.wait_warning(&web, "NoNodes", &["no node matches the node selector"]).await?;
        faults.set_pool_label(&nodes[0].name, Some("edge")).await?;
        namespace.wait_exposed_on(&web, &nodes[..1]).await?;
        faults.set_pool_label(&nodes[1].name, Some("dmz")).await?;
        namespace.wait_exposed_on(&web, &nodes[..2]).await?;
        faults.set_pool_label(&nodes[0].name, None).await?;
        namespace.wait_exposed_on(&web, &nodes[1..2]).await.map(drop)
    })
    .await
}

#[tokio::test]
async fn invalid_node_annotation_is_reported_and_changes_no_address() -> Result<(), Failure> {
    fault_test(async |namespace, faults| {
        let nodes = namespace.cluster().list_nodes().await?;
        let [port] = namespace.allocate_ports().await?;
        let web = service("web").families(&["IPv4", "IPv6"]).tcp(port);
        namespace.apply(&web).await?;
        namespace.wait_published(&web, &nodes).await?;
        // The test uses a new value, because the operator reports the same error only once an hour.
        let invalid_value = format!("oops-{}", namespace.name());
        faults.override_addresses(&nodes[0].name, Some(&invalid_value)).await?;
        let parts = ["akrobateo.io/address", &nodes[0].name, &invalid_value, "expected IP addresses"];
        namespace.wait_condition(&web, "Exposed", &parts).await?;
        namespace.wait_published(&web, &nodes).await?;
        eventually("a Warning of the node has the value", async || {
            let events = faults.list_node_events(&nodes[0].name).await?;
            let has_warning = events.iter().any(|event| {
                event.type_.as_deref() == Some("Warning")
                    && event.reason.as_deref() == Some("InvalidNodeAddress")
                    && event.note.as_ref().is_some_and(|note| parts.iter().all(|part| note.contains(part)))
            });
            ensure(has_warning, || format!("the events of the node are {events:?}"))
        })
        .await?;
        faults.override_addresses(&nodes[0].name, None).await?;
        eventually("the condition has no message", async || {
            let condition = namespace.get_condition(&web).await?;
            ensure_eq("message", &condition.message.as_str(), &"")
        })
        .await
    })
    .await
}

#[tokio::test]
async fn service_loses_its_addresses_if_all_nodes_are_excluded() -> Result<(), Failure> {
    fault_test(async |namespace, faults| {
        let nodes = namespace.cluster().list_nodes().await?;
        let [port] = namespace.allocate_ports().await?;
        let web = service("web").tcp(port);
        namespace.apply(&web).await?;
        namespace.wait_published(&web, &nodes).await?;
        for node in &nodes {
            faults.set_exclude_label(&node.name).await?;
        }
        let parts = ["node.kubernetes.io/exclude-from-external-load-balancers", "--ignore-exclude-label"];
        namespace.wait_warning(&web, "NoAddresses", &parts).await?;
        ensure_eq("published addresses", &namespace.published_addresses(&web).await?, &vec![])?;
        for node in &nodes {
            faults.remove_exclude_label(&node.name).await?;
        }
        namespace.wait_published(&web, &nodes).await.map(drop)
    })
    .await
}

#[tokio::test]
async fn invalid_annotation_keeps_the_type_of_the_published_addresses() -> Result<(), Failure> {
    fault_test(async |namespace, faults| {
        let nodes = namespace.cluster().list_nodes().await?;
        let [web_port, external_port] = namespace.allocate_ports().await?;
        let internal_service = service("internal")
            .families(&["IPv4", "IPv6"])
            .tcp(web_port)
            .annotation(ADDRESS_TYPES, "InternalIP");
        let external_service = service("external").families(&["IPv4", "IPv6"]).tcp(external_port);
        namespace.apply(&internal_service).await?;
        namespace.apply(&external_service).await?;
        namespace.wait_published(&internal_service, &nodes).await?;
        namespace.wait_published(&external_service, &nodes).await?;
        let external_ip: IpAddr = "203.0.113.7".parse().unwrap();
        let keep_external_ip = async {
            loop {
                faults.add_external_ip(&nodes[0].name, &external_ip.to_string()).await?;
                sleep(Duration::from_millis(200)).await;
            }
        };
        let ensure_internal_ips_stay = async {
            // The node has no IPv6 address of type ExternalIP, so its IPv6 InternalIP stays published.
            let mut nodes_with_external_ip = nodes.clone();
            nodes_with_external_ip[0].addresses.retain(IpAddr::is_ipv6);
            nodes_with_external_ip[0].addresses.push(external_ip);
            namespace.wait_published(&external_service, &nodes_with_external_ip).await?;
            namespace.apply(&internal_service.clone().annotation(REPLICAS, "lots")).await?;
            namespace.wait_condition(&internal_service, "InvalidAnnotation", &["\"lots\""]).await?;
            consistently(Duration::from_secs(3), "the InternalIPs are published", async || {
                namespace.ensure_published(&internal_service, &nodes).await.map(drop)
            })
            .await
        };
        tokio::select! {
            result = ensure_internal_ips_stay => result,
            failure = keep_external_ip => failure,
        }
    })
    .await
}

#[tokio::test]
async fn address_override_of_one_node_does_not_change_the_data_path() -> Result<(), Failure> {
    fault_test_in_dedicated_mode(async |namespace, faults| {
        let nodes = namespace.cluster().list_nodes().await?;
        namespace.start_pod_on_every_node(&backend_pod()).await?;
        let [port] = namespace.allocate_ports().await?;
        let web = service("web").tcp(port).traffic_policy_local();
        namespace.expose(&web).await?;
        let daemonset_before = namespace.wait_rolled_out(&web).await?;
        faults.override_addresses(&nodes[0].name, Some("203.0.113.7")).await?;
        let replies = namespace.wait_exposed_on(&web, &nodes[1..]).await?;
        for reply in &replies {
            ensure_eq("client", &Some(reply.answer()?.client_address.ip()), &reply.client_address)?;
        }
        namespace.wait_condition(&web, "PartlyExposed", &[&nodes[0].name, "InternalIP of a node"]).await?;
        let daemonset_after = namespace.get_daemonset(&web).await?;
        ensure_eq("generation", &daemonset_after.metadata.generation, &daemonset_before.metadata.generation)?;
        faults.override_addresses(&nodes[0].name, None).await?;
        namespace.wait_exposed(&web).await.map(drop)
    })
    .await
}

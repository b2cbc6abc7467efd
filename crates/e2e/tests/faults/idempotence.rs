//! The operator writes nothing if no Service has changed, or if a write would have no effect.

use akrobateo_core::annotations::{IP_MODE, WORKLOAD};
use e2e::{Failure, Namespace, ServiceBuilder, audit, ensure_eq, fault_test, service};
use k8s_openapi::api::core::v1::Service;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;

/// Returns twenty Services of all kinds: both ipModes, both families, policy Local, Deployments, an invalid annotation
/// and a port conflict.
async fn build_services(namespace: &Namespace) -> Result<Vec<ServiceBuilder>, Failure> {
    let ports: [u16; 20] = namespace.allocate_ports().await?;
    let build_service = |(index, port): (usize, u16)| {
        let service = service(&format!("web-{index:02}")).tcp(port);
        match index % 5 {
            0 => service.udp(port),
            1 => service.with_ip_mode_proxy(),
            2 => service.traffic_policy_local(),
            3 => service.annotation(WORKLOAD, "Deployment"),
            _ => service.families(&["IPv6", "IPv4"]),
        }
    };
    let mut services: Vec<_> = ports.into_iter().enumerate().map(build_service).collect();
    services[9] = services[9].clone().annotation(IP_MODE, "Bogus");
    services[19] = service("web-19").tcp(ports[0]);
    Ok(services)
}

#[tokio::test]
async fn restarted_operator_writes_nothing_for_twenty_unchanged_services() -> Result<(), Failure> {
    fault_test(async |namespace, faults| {
        namespace.start_backend().await?;
        let services = build_services(namespace).await?;
        for service in &services {
            namespace.apply(service).await?;
        }
        namespace.wait_stable().await?;
        faults.ensure_restart_writes_nothing(services.len()).await
    })
    .await
}

/// Publishes an address in the status, like another load balancer controller.
async fn publish_foreign_address(namespace: &Namespace, service: &ServiceBuilder) -> Result<(), Failure> {
    let services: Api<Service> = Api::namespaced(namespace.cluster().client.clone(), namespace.name());
    let params = PatchParams { field_manager: Some("other-lb".to_owned()), ..PatchParams::default() };
    let patch = json!({ "status": { "loadBalancer": { "ingress": [{ "ip": "192.0.2.66" }] } } });
    services.patch_status(service.name(), &params, &Patch::Merge(patch)).await?;
    Ok(())
}

#[tokio::test]
async fn foreign_address_causes_no_repeated_writes() -> Result<(), Failure> {
    fault_test(async |namespace, faults| {
        let [port] = namespace.allocate_ports().await?;
        // Only this test has a Service of this name.
        let web = service("foreign-address").tcp(port).on_nodes(&["nowhere"]);
        namespace.apply(&web).await?;
        namespace.wait_warning(&web, "NoNodes", &["no node matches the node selector"]).await?;
        publish_foreign_address(namespace, &web).await?;
        namespace.wait_condition(&web, "NoNodes", &["192.0.2.66", "other-lb"]).await?;
        let operator = faults.operator.wait_ready().await?;
        let count_writes = || {
            let requests = audit::read_requests_from_pod(&operator)?.into_iter();
            Ok::<_, Failure>(
                requests.filter(|request| request.is_write() && request.object_name == web.name()).count(),
            )
        };
        let write_count_before = count_writes()?;
        for round in 0..3 {
            // Each change of the Service causes a reconciliation.
            namespace.apply(&web.clone().label("round", &round.to_string())).await?;
            namespace.wait_operator_synced().await?;
        }
        ensure_eq("number of writes", &count_writes()?, &write_count_before)?;
        let addresses = namespace.published_addresses(&web).await?;
        ensure_eq("published addresses", &addresses, &vec!["192.0.2.66".parse().unwrap()])
    })
    .await
}

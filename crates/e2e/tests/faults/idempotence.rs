//! A restarted operator writes nothing if no Service has changed.

use std::time::Duration;

use akrobateo_core::annotations::{IP_MODE, WORKLOAD};
use e2e::{Failure, Namespace, ServiceBuilder, audit, consistently, ensure, eventually, fault_test, service};

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
        let operator = faults.operator.restart().await?;
        eventually("the new operator has reconciled every Service", async || {
            let metrics = faults.get_metrics(&operator).await?;
            let reconciliation_count = metrics.lines().find_map(|line| {
                line.strip_prefix(r#"akrobateo_reconciles_total{result="ok"} "#)?.parse::<usize>().ok()
            });
            ensure(reconciliation_count >= Some(services.len()), || {
                format!(
                    "the operator has made {reconciliation_count:?} reconciliations, expected at least {}",
                    services.len()
                )
            })
        })
        .await?;
        consistently(Duration::from_secs(3), "the operator writes only its Lease", async || {
            let requests = audit::requests_from_pod(&operator)?.into_iter();
            let write_requests: Vec<_> =
                requests.filter(|request| request.is_write() && request.resource != "leases").collect();
            ensure(write_requests.is_empty(), || {
                format!("the operator made these writes: {write_requests:?}")
            })
        })
        .await
    })
    .await
}

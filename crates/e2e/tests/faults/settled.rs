//! On a settled cluster a restart of the operator writes nothing.

use std::time::Duration;

use e2e::{Failure, Namespace, ServiceBuilder, audit, ensure, eventually, fault_test, service, stays};

/// Of every kind that there is: kept from the nodes or not, of both families, Local, as Deployments, refused, crowded out.
async fn twenty_services(namespace: &Namespace) -> Result<Vec<ServiceBuilder>, Failure> {
    use akrobateo_core::annotations::{IP_MODE, WORKLOAD};
    let ports: [u16; 20] = namespace.ports().await?;
    let of = |(index, port): (usize, u16)| {
        let plain = service(&format!("settled-{index:02}")).tcp(port);
        match index % 5 {
            0 => plain.udp(port),
            1 => plain.proxy_mode(),
            2 => plain.local(),
            3 => plain.annotation(WORKLOAD, "Deployment"),
            _ => plain.families(&["IPv6", "IPv4"]),
        }
    };
    let mut services: Vec<_> = ports.into_iter().enumerate().map(of).collect();
    services[9] = services[9].clone().annotation(IP_MODE, "Bogus");
    services[19] = service("settled-19").tcp(ports[0]);
    Ok(services)
}

#[tokio::test]
async fn an_operator_that_finds_twenty_settled_services_makes_not_one_write() -> Result<(), Failure> {
    fault_test(async |namespace, faults| {
        namespace.backend().await?;
        let services = twenty_services(namespace).await?;
        for service in &services {
            namespace.apply(service).await?;
        }
        namespace.quiet().await?;
        let operator = faults.operator.restart().await?;
        eventually("the next operator has had a look at each", async || {
            let metrics = faults.metrics(&operator).await?;
            let turns = metrics.lines().find_map(|line| {
                line.strip_prefix(r#"akrobateo_reconciles_total{result="ok"} "#)?.parse::<usize>().ok()
            });
            ensure(turns >= Some(services.len()), || format!("turns: {turns:?}"))
        })
        .await?;
        stays(Duration::from_secs(3), "that the operator writes nothing but its Lease", async || {
            let requests = audit::requests_of(&operator)?.into_iter();
            let written: Vec<_> =
                requests.filter(|request| request.is_write() && request.resource != "leases").collect();
            ensure(written.is_empty(), || format!("{written:?}"))
        })
        .await
    })
    .await
}

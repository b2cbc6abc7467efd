//! Invalid annotations and specs: the Service gets a Warning, and its previous state stays in force.

use akrobateo_core::annotations::IP_MODE;
use e2e::{Failure, ServiceBuilder, ensure_eq, eventually, exposed_service_test, service, test};

#[tokio::test]
async fn service_with_an_invalid_annotation_gets_one_warning_and_keeps_its_state() -> Result<(), Failure> {
    exposed_service_test(
        |port| service("web").tcp(port).with_ip_mode_proxy(),
        async |namespace, web| {
            let replies_before = namespace.wait_exposed(&web).await?;
            namespace.wait_rollouts_ended(&web).await?;
            let workload_before = namespace.list_workload_versions(&web).await?;
            namespace.apply(&web.clone().annotation(IP_MODE, "Bogus")).await?;
            eventually("one Warning has the invalid value and the allowed values", async || {
                let events = namespace.list_events(&web).await?;
                let warnings = events.iter().filter(|event| {
                    let note = event.note.as_deref().unwrap_or_default();
                    event.type_.as_deref() == Some("Warning")
                        && event.reason.as_deref() == Some("InvalidAnnotation")
                        && [IP_MODE, "Bogus", "VIP", "Proxy"].iter().all(|word| note.contains(word))
                });
                ensure_eq("number of such Warnings", &warnings.count(), &1)
            })
            .await?;
            namespace.wait_operator_synced().await?;
            ensure_eq("workload", &namespace.list_workload_versions(&web).await?, &workload_before)?;
            let targets: Vec<_> = replies_before.iter().map(|reply| reply.target).collect();
            let replies = namespace.cluster().send_requests(&targets).await?;
            namespace.ensure_forwarded(&web, &replies).await?;
            // The operator applies a change of the Service after the annotation is corrected.
            let [added_port] = namespace.allocate_ports().await?;
            namespace.expose(&web.tcp(added_port)).await.map(drop)
        },
    )
    .await
}

#[tokio::test]
async fn service_with_too_many_ports_gets_a_warning_with_the_limit() -> Result<(), Failure> {
    test(async |namespace| {
        let service_without_ports = service("web").without_node_ports();
        let web = (20_001..=21_001).fold(service_without_ports, ServiceBuilder::tcp);
        namespace.apply(&web).await?;
        namespace.wait_warning(&web, "UnsupportedSpec", &["1001 ports", "1000"]).await?;
        ensure_eq("number of DaemonSets", &namespace.list_daemonsets(&web).await?.len(), &0)
    })
    .await
}

#[tokio::test]
async fn service_without_node_ports_is_exposed() -> Result<(), Failure> {
    test(async |namespace| {
        namespace.start_backend().await?;
        let [port] = namespace.allocate_ports().await?;
        let web = service("web").tcp(port).udp(port).without_node_ports();
        let ports = namespace.apply(&web).await?.spec.and_then(|spec| spec.ports).unwrap_or_default();
        assert!(ports.iter().all(|port| port.node_port.is_none()), "{ports:?}");
        namespace.wait_exposed(&web).await.map(drop)
    })
    .await
}

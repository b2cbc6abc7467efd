//! A long outage of the API server. Agents and proxies forward all Services, and all changes take effect afterwards.

use std::time::Duration;

use akrobateo_core::Protocol;
use e2e::backend::backend_pod;
use e2e::{
    Failure, Faults, Namespace, NodeAddresses, ServiceBuilder, Target, consistently, ensure, ensure_eq,
    eventually, fault_test_in_shared_mode_within, restart_count, service,
};
use futures::future::{try_join, try_join_all};
use kube::ResourceExt;
use tokio::time::sleep;

/// The duration of the outage. The outage is longer than all timeouts of leases, requests and nodes.
const OUTAGE_DURATION: Duration = Duration::from_mins(5);
/// The time from the start of the outage to the crash of an agent.
const TIME_UNTIL_CRASH: Duration = Duration::from_mins(1);
/// The time limit for an answer during the outage. Other tests run at the same time, so on a machine with few processors
/// the client and the backend may get no processor for a second.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(4);
/// The time for which an agent counts as alive after a renewal of its Lease.
const LEASE_DURATION: Duration = Duration::from_secs(15);
const TIME_LIMIT: Duration = Duration::from_mins(10);

/// Replaces the only backend by a pod on another node. Waits until only the new backend answers.
async fn move_backend(
    namespace: &Namespace,
    (old_name, new_name): (&str, &str),
    node: &NodeAddresses,
    targets: &[Target],
) -> Result<(), Failure> {
    namespace.start_pod(&backend_pod().named(new_name).on_node(&node.name)).await?;
    namespace.delete_pod(old_name).await?;
    eventually("only the new backend answers", async || {
        for reply in namespace.cluster().send_requests(targets).await? {
            ensure_eq("host that answers", &reply.answer()?.host.as_str(), &new_name)?;
        }
        Ok(())
    })
    .await
}

/// Checks during the whole outage that every target answers. Meanwhile an agent crashes, and starts again without the
/// API server. At the end, another program deletes the rules of this agent.
async fn check_traffic_during_outage(
    namespace: &Namespace,
    faults: &Faults,
    node: &str,
    targets: &[Target],
) -> Result<(), Failure> {
    let agent = faults.agents.get_pod_on_node(node).await?;
    faults.pause_api_server().await?;
    let check_answers = consistently(OUTAGE_DURATION, "every target answers", async || {
        let replies = namespace.cluster().send_requests_within(targets, ANSWER_TIMEOUT).await?;
        let failed_replies: Vec<_> = replies.iter().filter(|reply| reply.result.is_err()).collect();
        ensure(failed_replies.is_empty(), || format!("these targets did not answer: {failed_replies:?}"))
    });
    let crash_agent = async {
        sleep(TIME_UNTIL_CRASH).await;
        faults.kill_container(&agent).await
    };
    try_join(check_answers, crash_agent).await?;
    faults.delete_agent_table(node).await?;
    eventually("the agent has restored its rules", async || {
        let replies = namespace.cluster().send_requests(targets).await?;
        replies.iter().try_for_each(|reply| reply.answer().map(drop))
    })
    .await?;
    faults.resume_api_server().await
}

/// Applies a change and a new Service. Both must take effect, and the changed Service must keep its addresses.
async fn check_changes_take_effect(
    namespace: &Namespace,
    changed_service: &ServiceBuilder,
    new_service: &ServiceBuilder,
) -> Result<(), Failure> {
    eventually("the API server answers", async || namespace.apply(changed_service).await.map(drop)).await?;
    namespace.apply(new_service).await?;
    let wait_changes_applied = async {
        namespace.wait_exposed(new_service).await?;
        namespace.wait_exposed(changed_service).await
    };
    let ensure_addresses_stay = async {
        loop {
            let addresses = namespace.published_addresses(changed_service).await?;
            ensure(!addresses.is_empty(), || {
                format!("Service {} lost its addresses", changed_service.name())
            })?;
        }
    };
    tokio::select! {
        result = wait_changes_applied => result.map(drop),
        failure = ensure_addresses_stay => failure,
    }
}

#[tokio::test]
async fn api_server_outage_interrupts_no_traffic_and_loses_no_change() -> Result<(), Failure> {
    fault_test_in_shared_mode_within(TIME_LIMIT, async |namespace, faults| {
        let nodes = namespace.cluster().list_nodes().await?;
        let [shared_port, dedicated_port, added_ports @ .., new_shared_port, new_dedicated_port] =
            namespace.allocate_ports::<6>().await?;
        let shared_service = service("shared").tcp(shared_port).udp(shared_port);
        let dedicated_service = service("dedicated")
            .tcp(dedicated_port)
            .udp(dedicated_port)
            .with_dedicated_mode()
            .with_ip_mode_proxy();
        namespace.start_pod(&backend_pod().named("first").on_node(&nodes[0].name)).await?;
        let mut targets = Vec::new();
        for service in [&shared_service, &dedicated_service] {
            targets.extend(namespace.expose(service).await?.iter().map(|reply| reply.target));
        }
        let operator_before = faults.operator.wait_ready().await?;

        move_backend(namespace, ("first", "second"), &nodes[1], &targets).await?;
        check_traffic_during_outage(namespace, faults, &nodes[2].name, &targets).await?;
        eventually("the API server answers", async || namespace.get_service(&shared_service).await.map(drop))
            .await?;
        // The agents renew their Leases one after another, but no address leaves the status.
        let ensure_all_published = consistently(LEASE_DURATION, "all nodes are published", async || {
            namespace.ensure_published(&shared_service, &nodes).await.map(drop)
        });
        let move_backend_again = move_backend(namespace, ("second", "third"), &nodes[0], &targets);
        try_join(ensure_all_published, move_backend_again).await?;

        let new_dedicated_service =
            service("new-dedicated").tcp(new_dedicated_port).with_dedicated_mode().with_ip_mode_proxy();
        try_join_all([
            check_changes_take_effect(
                namespace,
                &shared_service.clone().tcp(added_ports[0]).without_port(Protocol::Udp, shared_port),
                &service("new-shared").tcp(new_shared_port),
            ),
            check_changes_take_effect(
                namespace,
                &dedicated_service.clone().tcp(added_ports[1]),
                &new_dedicated_service,
            ),
        ])
        .await?;
        let operator_after = faults.operator.wait_ready().await?;
        ensure_eq("pod of the operator", &operator_after.name_any(), &operator_before.name_any())?;
        ensure_eq(
            "restarts of the operator",
            &restart_count(&operator_after),
            &restart_count(&operator_before),
        )
    })
    .await
}

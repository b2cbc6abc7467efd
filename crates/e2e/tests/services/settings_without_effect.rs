//! Settings of a Service that Akrobateo does not implement, or that have no effect. The condition names these
//! settings.

use e2e::{Failure, exposed_service_test, exposed_service_test_in_dedicated_mode, service};

#[tokio::test]
async fn session_affinity_causes_a_warning_if_proxies_forward() -> Result<(), Failure> {
    exposed_service_test_in_dedicated_mode(
        |port| service("web").tcp(port).session_affinity(),
        async |namespace, web| {
            // kube-proxy keeps the affinity.
            namespace.wait_condition(&web, "Exposed", &[]).await?;
            namespace.ensure_no_warnings(&web).await?;
            let web = web.with_ip_mode_proxy();
            namespace.expose(&web).await?;
            namespace.wait_warning(&web, "SessionAffinityNotKept", &["sessionAffinity is ClientIP"]).await
        },
    )
    .await
}

#[tokio::test]
async fn settings_for_addresses_change_the_condition_and_cause_no_warning() -> Result<(), Failure> {
    exposed_service_test(
        |port| {
            let web = service("web").tcp(port).load_balancer_ip("192.0.2.9");
            web.annotation("metallb.io/loadBalancerIPs", "192.0.2.9")
        },
        async |namespace, web| {
            let parts = ["loadBalancerIP 192.0.2.9", "metallb.io/loadBalancerIPs", "no effect"];
            namespace.wait_condition(&web, "Exposed", &parts).await?;
            namespace.ensure_no_warnings(&web).await
        },
    )
    .await
}

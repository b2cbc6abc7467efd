//! The security context of the proxy pods and of the operator's pods.

use e2e::{Failure, Namespace, Operator, ServiceBuilder, service, test_in_dedicated_mode};
use k8s_openapi::api::core::v1::{Container, PodSpec};

/// Applies a Service, and returns the spec of its first proxy pod.
async fn apply_and_get_proxy_pod(
    namespace: &Namespace,
    service: &ServiceBuilder,
) -> Result<PodSpec, Failure> {
    namespace.apply(service).await?;
    namespace.wait_rolled_out(service).await?;
    Ok(namespace.list_proxy_pods(service).await?.remove(0).spec.unwrap_or_default())
}

fn containers(pod: &PodSpec) -> impl Iterator<Item = &Container> {
    pod.init_containers.iter().flatten().chain(&pod.containers)
}

fn is_privileged(container: &Container) -> bool {
    container.security_context.as_ref().and_then(|context| context.privileged).unwrap_or(false)
}

#[tokio::test]
async fn proxy_arguments_have_every_cluster_ip_and_port() -> Result<(), Failure> {
    test_in_dedicated_mode(async |namespace| {
        let [tcp_port, udp_port] = namespace.allocate_ports().await?;
        let web = service("web").families(&["IPv4", "IPv6"]).tcp(tcp_port).udp(udp_port).with_ip_mode_proxy();
        let pod = apply_and_get_proxy_pod(namespace, &web).await?;
        let spec = namespace.get_service(&web).await?.spec.unwrap_or_default();
        let mut expected_forwards = Vec::new();
        for ip in spec.cluster_ips.expect("the Service has ClusterIPs") {
            let ip = if ip.contains(':') { format!("[{ip}]") } else { ip };
            expected_forwards.push(format!("--forward=tcp/{tcp_port}={ip}:{tcp_port}"));
            expected_forwards.push(format!("--forward=udp/{udp_port}={ip}:{udp_port}"));
        }
        let args = pod.containers[0].args.clone().unwrap_or_default();
        let mut forwards: Vec<_> = args.into_iter().filter(|arg| arg.starts_with("--forward")).collect();
        forwards.sort();
        expected_forwards.sort();
        assert_eq!(forwards, expected_forwards);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn ipv4_proxy_pod_has_no_privileged_container() -> Result<(), Failure> {
    test_in_dedicated_mode(async |namespace| {
        let [port] = namespace.allocate_ports().await?;
        let web = service("web").families(&["IPv4"]).tcp(port).with_ip_mode_proxy();
        let pod = apply_and_get_proxy_pod(namespace, &web).await?;
        assert!(containers(&pod).all(|container| !is_privileged(container)), "{pod:?}");
        assert!(!pod.host_network.unwrap_or(false));
        Ok(())
    })
    .await
}

#[tokio::test]
async fn proxy_pod_that_only_reserves_ports_is_unprivileged_and_uses_the_host_network() -> Result<(), Failure>
{
    test_in_dedicated_mode(async |namespace| {
        let [port] = namespace.allocate_ports().await?;
        // With ipMode VIP kube-proxy answers for both families, so the pods need no privileges.
        let web = service("web").families(&["IPv4", "IPv6"]).tcp(port);
        let pod = apply_and_get_proxy_pod(namespace, &web).await?;
        assert_eq!(pod.host_network, Some(true));
        assert_eq!(containers(&pod).count(), 1, "{pod:?}");
        for container in containers(&pod) {
            let context = container.security_context.clone().unwrap_or_default();
            assert_eq!((context.privileged.unwrap_or(false), context.run_as_non_root), (false, Some(true)));
            let capabilities = context.capabilities.unwrap_or_default();
            assert_eq!((capabilities.drop, capabilities.add), (Some(vec!["ALL".to_owned()]), None));
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn proxy_pod_has_no_service_account_token() -> Result<(), Failure> {
    test_in_dedicated_mode(async |namespace| {
        let [port] = namespace.allocate_ports().await?;
        let pod = apply_and_get_proxy_pod(namespace, &service("web").tcp(port)).await?;
        assert_eq!(pod.automount_service_account_token, Some(false));
        assert_eq!(pod.enable_service_links, Some(false));
        assert!(pod.volumes.is_none(), "{pod:?}");
        assert!(containers(&pod).all(|container| container.volume_mounts.is_none()), "{pod:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn operator_pod_is_unprivileged() -> Result<(), Failure> {
    test_in_dedicated_mode(async |namespace| {
        let pods = Operator::new(&namespace.cluster().client).list_pods().await?;
        assert!(!pods.is_empty(), "the operator is not deployed");
        for pod in pods.into_iter().filter_map(|pod| pod.spec) {
            let pod_security_context = pod.security_context.clone().unwrap_or_default();
            assert!(pod_security_context.run_as_user != Some(0), "{pod:?}");
            for container in containers(&pod) {
                let context = container.security_context.clone().unwrap_or_default();
                assert_eq!(context.run_as_non_root.or(pod_security_context.run_as_non_root), Some(true));
                assert_eq!(context.allow_privilege_escalation, Some(false));
                let capabilities = context.capabilities.unwrap_or_default();
                assert_eq!((capabilities.drop, capabilities.add), (Some(vec!["ALL".to_owned()]), None));
            }
        }
        Ok(())
    })
    .await
}

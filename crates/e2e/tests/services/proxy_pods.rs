//! What runs in the cluster is what it says, with no more rights than it needs.

use e2e::{Failure, Namespace, Operator, ServiceBuilder, service, test};
use k8s_openapi::api::core::v1::{Container, PodSpec};

/// What the first pod of a Service's proxies is told to run.
async fn proxy_pod(namespace: &Namespace, service: &ServiceBuilder) -> Result<PodSpec, Failure> {
    namespace.apply(service).await?;
    namespace.rolled_out(service).await?;
    Ok(namespace.proxy_pods(service).await?.remove(0).spec.unwrap_or_default())
}

fn containers(pod: &PodSpec) -> impl Iterator<Item = &Container> {
    pod.init_containers.iter().flatten().chain(&pod.containers)
}

fn is_privileged(container: &Container) -> bool {
    container.security_context.as_ref().and_then(|context| context.privileged).unwrap_or(false)
}

#[tokio::test]
async fn a_proxy_pod_shows_what_it_forwards() -> Result<(), Failure> {
    test(async |namespace| {
        let [tcp, udp] = namespace.ports().await?;
        let web = service("web").families(&["IPv4", "IPv6"]).tcp(tcp).udp(udp);
        let pod = proxy_pod(namespace, &web).await?;
        let object = namespace.service(&web).await?;
        let mut wanted = Vec::new();
        for ip in object.spec.expect("a spec").cluster_ips.expect("ClusterIPs") {
            let ip = if ip.contains(':') { format!("[{ip}]") } else { ip };
            wanted.push(format!("--forward=tcp/{tcp}={ip}:{tcp}"));
            wanted.push(format!("--forward=udp/{udp}={ip}:{udp}"));
        }
        let args = pod.containers[0].args.clone().unwrap_or_default();
        let mut forwards: Vec<_> = args.into_iter().filter(|arg| arg.starts_with("--forward")).collect();
        forwards.sort();
        wanted.sort();
        assert_eq!(forwards, wanted);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn for_ipv4_no_container_of_a_proxy_pod_is_privileged() -> Result<(), Failure> {
    test(async |namespace| {
        let [port] = namespace.ports().await?;
        let pod = proxy_pod(namespace, &service("web").families(&["IPv4"]).tcp(port)).await?;
        assert!(containers(&pod).all(|container| !is_privileged(container)), "{pod:?}");
        assert!(!pod.host_network.unwrap_or(false));
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_proxy_pod_has_no_access_to_the_api() -> Result<(), Failure> {
    test(async |namespace| {
        let [port] = namespace.ports().await?;
        let pod = proxy_pod(namespace, &service("web").tcp(port)).await?;
        assert_eq!(pod.automount_service_account_token, Some(false));
        assert_eq!(pod.enable_service_links, Some(false));
        assert!(pod.volumes.is_none(), "{pod:?}");
        assert!(containers(&pod).all(|container| container.volume_mounts.is_none()), "{pod:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn the_operator_has_no_rights_on_its_node() -> Result<(), Failure> {
    test(async |namespace| {
        let pods = Operator::of(&namespace.cluster().client).pods().await?;
        assert!(!pods.is_empty(), "the operator is not deployed");
        for pod in pods.into_iter().filter_map(|pod| pod.spec) {
            let whole = pod.security_context.clone().unwrap_or_default();
            assert!(whole.run_as_user != Some(0), "{pod:?}");
            for container in containers(&pod) {
                let own = container.security_context.clone().unwrap_or_default();
                assert_eq!(own.run_as_non_root.or(whole.run_as_non_root), Some(true));
                assert_eq!(own.allow_privilege_escalation, Some(false));
                let dropped = own.capabilities.unwrap_or_default();
                assert_eq!((dropped.drop, dropped.add), (Some(vec!["ALL".to_owned()]), None));
            }
        }
        Ok(())
    })
    .await
}

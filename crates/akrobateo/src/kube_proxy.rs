//! Resolves `--ip-mode auto` from the mode of kube-proxy. Does I/O.

use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client};
use tokio::time::sleep;

use crate::call::{CallError, call};
use crate::metrics::Metrics;
use crate::spec::IpMode;

/// The `ConfigMap` in which kubeadm stores the configuration of kube-proxy.
const CONFIG_MAP_NAMESPACE: &str = "kube-system";
const CONFIG_MAP_NAME: &str = "kube-proxy";

/// The time between two attempts to read the `ConfigMap`.
const RETRY_PERIOD: Duration = Duration::from_secs(2);

/// Repeats the request for the mode until it succeeds, because a wrong ipMode would break the published addresses.
pub(crate) async fn wait_for_ip_mode(client: &Client, metrics: &Metrics) -> IpMode {
    loop {
        match read_ip_mode(client, metrics).await {
            Ok(mode) => return mode,
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "cannot read the mode of kube-proxy; trying again; --ip-mode=VIP or --ip-mode=Proxy skips this step"
                );
            }
        }
        sleep(RETRY_PERIOD).await;
    }
}

/// Returns Proxy if kube-proxy runs in IPVS mode, otherwise VIP.
///
/// In IPVS mode kube-proxy binds published addresses on every node. If the address of a node is published with ipMode
/// VIP, the other nodes cannot reach that node (<https://github.com/kubernetes/kubernetes/issues/127410>).
pub(crate) async fn read_ip_mode(client: &Client, metrics: &Metrics) -> Result<IpMode, CallError> {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), CONFIG_MAP_NAMESPACE);
    let config = call(metrics, "read_kube_proxy_mode", api.get_opt(CONFIG_MAP_NAME)).await?;
    let mut files = config.iter().flat_map(|config_map| config_map.data.iter().flatten());
    Ok(if files.any(|(_, file)| has_ipvs_mode(file)) { IpMode::Proxy } else { IpMode::Vip })
}

fn has_ipvs_mode(config: &str) -> bool {
    let mut modes = config.lines().filter_map(|line| line.trim().strip_prefix("mode:"));
    modes.any(|mode| mode.trim().trim_matches(['"', '\'']) == "ipvs")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::scripted_api::scripted_api;

    #[tokio::test(start_paused = true)]
    async fn mode_is_read_again_until_the_api_server_answers() {
        let (client, mut api) = scripted_api();
        let ip_mode = tokio::spawn(async move { wait_for_ip_mode(&client, &Metrics::new()).await });
        api.next_request().await.answer_error(503, "ServiceUnavailable");
        api.next_request().await.answer(&json!({ "data": { "config.conf": "mode: ipvs" } }));
        assert_eq!(ip_mode.await.unwrap(), IpMode::Proxy);
    }

    #[tokio::test]
    async fn cluster_without_the_config_map_gets_ip_mode_vip() {
        let (client, mut api) = scripted_api();
        let ip_mode = tokio::spawn(async move { wait_for_ip_mode(&client, &Metrics::new()).await });
        api.next_request().await.answer_error(404, "NotFound");
        assert_eq!(ip_mode.await.unwrap(), IpMode::Vip);
    }

    #[test]
    fn only_the_mode_field_selects_ipvs() {
        assert!(has_ipvs_mode("kind: KubeProxyConfiguration\nmode: ipvs\n"));
        assert!(has_ipvs_mode("mode: \"ipvs\""));
        assert!(!has_ipvs_mode("mode: \"\"\nipvs:\n  scheduler: rr\n"));
        assert!(!has_ipvs_mode("mode: nftables"));
    }
}

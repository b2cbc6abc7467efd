//! What `--ip-mode auto` comes to: whether kube-proxy may answer on nodes' addresses here. Does I/O.

use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client};
use tokio::time::sleep;

use crate::call::{CallError, call};
use crate::metrics::Metrics;
use crate::spec::IpMode;

/// Where kubeadm, and what is made with it, keeps kube-proxy's configuration.
const NAMESPACE: &str = "kube-system";
const CONFIG_MAP: &str = "kube-proxy";

/// Between attempts to read it.
const RETRY: Duration = Duration::from_secs(2);

/// Asks until there is an answer: without one, what worked might be broken.
pub(crate) async fn auto_ip_mode(client: &Client, metrics: &Metrics) -> IpMode {
    loop {
        match read_ip_mode(client, metrics).await {
            Ok(mode) => return mode,
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "cannot read kube-proxy's mode, trying again; --ip-mode VIP or Proxy makes that unnecessary"
                );
            }
        }
        sleep(RETRY).await;
    }
}

/// In IPVS mode kube-proxy binds published addresses on every node: a node's own address there would cut the other
/// nodes off from it (<https://github.com/kubernetes/kubernetes/issues/127410>). Then it is Proxy, otherwise VIP.
pub(crate) async fn read_ip_mode(client: &Client, metrics: &Metrics) -> Result<IpMode, CallError> {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), NAMESPACE);
    let config = call(metrics, "read_kube_proxy_mode", api.get_opt(CONFIG_MAP)).await?;
    let ipvs = config.iter().flat_map(|map| map.data.iter().flatten()).any(|(_, text)| is_ipvs(text));
    Ok(if ipvs { IpMode::Proxy } else { IpMode::Vip })
}

fn is_ipvs(config: &str) -> bool {
    let modes = config.lines().filter_map(|line| line.trim().strip_prefix("mode:"));
    modes.into_iter().any(|mode| mode.trim().trim_matches(['"', '\'']) == "ipvs")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ipvs_is_recognised_and_nothing_else() {
        assert!(is_ipvs("kind: KubeProxyConfiguration\nmode: ipvs\n"));
        assert!(is_ipvs("mode: \"ipvs\""));
        assert!(!is_ipvs("mode: \"\"\nipvs:\n  scheduler: rr\n"));
        assert!(!is_ipvs("mode: nftables"));
    }
}

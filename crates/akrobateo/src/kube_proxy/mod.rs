//! Detects whether ipMode VIP is dangerous in this cluster, and repeats the detection periodically. Does I/O.
//!
//! In IPVS mode kube-proxy binds published addresses on every node. If the address of a node is published with ipMode
//! VIP, the other nodes cannot reach that node (<https://github.com/kubernetes/kubernetes/issues/127410>). Programs
//! that replace kube-proxy have similar effects.

use std::sync::Arc;
use std::time::Duration;

use akrobateo_services::kube_proxy_findings::{
    CONFIG_MAPS, Finding, KUBE_PROXY_NAMESPACE, POD_SELECTORS, config_map_findings, find_vip_danger,
    pod_finding,
};
use api_client::{CallError, call};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::ListParams;
use kube::{Api, Client};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::metrics::Metrics;

/// The time between two attempts until the first detection succeeds.
const RETRY_PERIOD: Duration = Duration::from_secs(2);
/// The time between two detections after the first success.
const DETECTION_PERIOD: Duration = Duration::from_mins(1);
/// The number of pods to read for each label. In most clusters all pods of kube-proxy have the same arguments, so a few
/// pods are enough.
const MAX_PODS_PER_LABEL: u32 = 20;

/// Repeats the detection until it succeeds, because a wrong guess would break published addresses that work. After the
/// first success, starts a task that repeats the detection. Returns the reason why ipMode VIP is dangerous; `None`
/// while VIP is safe.
pub(crate) async fn start_vip_danger_detection(
    client: &Client,
    metrics: &Arc<Metrics>,
) -> watch::Receiver<Option<String>> {
    let findings = loop {
        match read_findings(client, metrics).await {
            Ok(findings) => break findings,
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "cannot detect the mode of kube-proxy; trying again; --ip-mode=VIP skips this step"
                );
            }
        }
        sleep(RETRY_PERIOD).await;
    };
    log_findings(&findings);
    let (vip_danger_sender, receiver) = watch::channel(find_vip_danger(&findings));
    tokio::spawn(repeat_detection(client.clone(), metrics.clone(), findings, vip_danger_sender));
    receiver
}

/// Detects once. Returns the reason why ipMode VIP is dangerous; `None` if VIP is safe.
pub(crate) async fn read_vip_danger(client: &Client, metrics: &Metrics) -> Result<Option<String>, CallError> {
    read_findings(client, metrics).await.map(|findings| find_vip_danger(&findings))
}

/// Repeats the detection until the receiver no longer exists. After a failed detection, the last result stays valid.
async fn repeat_detection(
    client: Client,
    metrics: Arc<Metrics>,
    mut known_findings: Vec<Finding>,
    vip_danger_sender: watch::Sender<Option<String>>,
) {
    while !vip_danger_sender.is_closed() {
        sleep(DETECTION_PERIOD).await;
        match read_findings(&client, &metrics).await {
            Ok(findings) if findings == known_findings => (),
            Ok(findings) => {
                log_findings(&findings);
                let danger = find_vip_danger(&findings);
                vip_danger_sender
                    .send_if_modified(|current| std::mem::replace(current, danger.clone()) != danger);
                known_findings = findings;
            }
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "cannot detect the mode of kube-proxy; keeping the last result");
            }
        }
    }
}

fn log_findings(findings: &[Finding]) {
    for Finding { place, fact, forbids_vip } in findings {
        tracing::info!(place, fact, forbids_vip, "detected how Services are implemented on the nodes");
    }
    if findings.is_empty() {
        tracing::info!(
            "the configuration of kube-proxy or Cilium is not in {KUBE_PROXY_NAMESPACE}; assuming that ipMode \
            VIP is safe; set --ip-mode=Proxy if kube-proxy uses IPVS"
        );
    }
}

async fn read_findings(client: &Client, metrics: &Metrics) -> Result<Vec<Finding>, CallError> {
    let mut findings = Vec::new();
    let config_maps: Api<ConfigMap> = Api::namespaced(client.clone(), KUBE_PROXY_NAMESPACE);
    for name in CONFIG_MAPS {
        let config_map = call(&metrics.api, "read_kube_proxy_mode", config_maps.get_opt(name)).await?;
        findings.extend(config_map.iter().flat_map(|config_map| config_map_findings(name, config_map)));
    }
    let pods: Api<Pod> = Api::namespaced(client.clone(), KUBE_PROXY_NAMESPACE);
    for selector in POD_SELECTORS {
        let params = ListParams::default().labels(selector).limit(MAX_PODS_PER_LABEL);
        let pods = call(&metrics.api, "read_kube_proxy_mode", pods.list(&params)).await?;
        for finding in pods.iter().filter_map(|pod| pod_finding(selector, pod)) {
            if !findings.contains(&finding) {
                findings.push(finding);
            }
        }
    }
    Ok(findings)
}

#[cfg(test)]
mod tests {
    use api_client::scripted_api::{ScriptedApi, scripted_api};
    use serde_json::{Value, json};

    use super::*;

    /// Answers one detection. `config` is the configuration of kube-proxy; there are no other objects.
    async fn answer_detection(api: &mut ScriptedApi, config: Option<&Value>) {
        for name in CONFIG_MAPS {
            let request = api.next_request().await;
            assert!(request.path.ends_with(&format!("/kube-system/configmaps/{name}")), "{}", request.path);
            match config.filter(|_| name == "kube-proxy") {
                Some(config) => request.answer(&json!({ "data": { "config.conf": config } })),
                None => request.answer_error(404, "NotFound"),
            }
        }
        for _ in POD_SELECTORS {
            let request = api.next_request().await;
            assert!(request.path.ends_with("/kube-system/pods"), "{}", request.path);
            request.answer_list(&[]);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn first_detection_is_repeated_until_it_succeeds() {
        let (client, mut api) = scripted_api();
        let receiver =
            tokio::spawn(async move { start_vip_danger_detection(&client, &Metrics::new()).await });
        api.next_request().await.answer_error(503, "ServiceUnavailable");
        answer_detection(&mut api, Some(&json!("mode: ipvs # fast"))).await;
        assert!(receiver.await.unwrap().borrow().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn changed_mode_is_detected_after_a_failed_detection() {
        let (client, mut api) = scripted_api();
        let receiver =
            tokio::spawn(async move { start_vip_danger_detection(&client, &Metrics::new()).await });
        answer_detection(&mut api, None).await;
        let mut receiver = receiver.await.unwrap();
        assert_eq!(*receiver.borrow_and_update(), None);
        api.next_request().await.answer_error(503, "ServiceUnavailable");
        answer_detection(&mut api, Some(&json!(r#"{"mode": "ipvs"}"#))).await;
        receiver.changed().await.unwrap();
        assert!(receiver.borrow_and_update().as_ref().is_some_and(|danger| danger.contains("IPVS")));
    }
}

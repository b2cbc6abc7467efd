//! Facts about the program that implements Services on the nodes. The facts come from the configuration in the cluster.
//! Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use serde_json::Value;

/// The namespace of kube-proxy and its replacements.
pub const KUBE_PROXY_NAMESPACE: &str = "kube-system";
/// The `ConfigMaps` with the configuration of kube-proxy (kubeadm, EKS) and of Cilium.
pub const CONFIG_MAPS: [&str; 3] = ["kube-proxy", "kube-proxy-config", CILIUM_CONFIG];
const CILIUM_CONFIG: &str = "cilium-config";
/// The labels of the pods of kube-proxy (`k8s-app` in kubeadm and kOps, `component` in RKE2) and of kube-router.
pub const POD_SELECTORS: [&str; 3] = ["k8s-app=kube-proxy", "component=kube-proxy", "k8s-app=kube-router"];
/// The annotations in which K3s and RKE2 record the arguments of a node. On such a node, kube-proxy is a part
/// of the process of K3s or RKE2.
const NODE_ARGUMENTS_ANNOTATIONS: [&str; 2] = ["k3s.io/node-args", "rke2.io/node-args"];

/// One fact about the program that implements Services on the nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The object that states the fact.
    pub place: String,
    /// The fact, as a sentence for the administrator.
    pub fact: String,
    /// True if addresses of nodes must not be published with ipMode VIP.
    pub forbids_vip: bool,
}

/// Returns the reason why ipMode VIP is dangerous in this cluster; `None` if VIP is safe.
#[must_use]
pub fn find_vip_danger(findings: &[Finding]) -> Option<String> {
    let finding = findings.iter().find(|finding| finding.forbids_vip)?;
    Some(format!("{} ({})", finding.fact, finding.place))
}

/// Returns the facts in a `ConfigMap` of kube-proxy or Cilium.
#[must_use]
pub fn config_map_findings(name: &str, config_map: &ConfigMap) -> Vec<Finding> {
    let data = config_map.data.iter().flatten();
    let findings = data.filter_map(|(key, text)| {
        let (fact, forbids_vip) = if name == CILIUM_CONFIG {
            describe_cilium_setting(key, text)?
        } else {
            describe_mode(&parse_mode(text)?)
        };
        Some(Finding {
            place: format!("ConfigMap {KUBE_PROXY_NAMESPACE}/{name}, key {key}"),
            fact,
            forbids_vip,
        })
    });
    findings.collect()
}

/// Returns the fact in the arguments of a pod that a selector of [`POD_SELECTORS`] found.
#[must_use]
pub fn pod_finding(selector: &str, pod: &Pod) -> Option<Finding> {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let argument_lists = containers.flat_map(|container| [&container.command, &container.args]);
    // A shell may run kube-proxy, so one argument can contain a whole command line.
    let words: Vec<_> = argument_lists.flatten().flatten().flat_map(|text| text.split_whitespace()).collect();
    let (fact, forbids_vip) = if selector.ends_with("kube-router") {
        let is_disabled = words.contains(&"--run-service-proxy=false");
        (!is_disabled).then(|| ("kube-router implements Services with IPVS".to_owned(), true))?
    } else {
        describe_mode(&find_mode_argument(&words)?)
    };
    // The place does not name the pod, because the name changes with each restart.
    let place = format!("arguments of the pods in {KUBE_PROXY_NAMESPACE} with the label {selector}");
    Some(Finding { place, fact, forbids_vip })
}

/// Returns the reason why ipMode VIP is dangerous according to the annotations of a node of K3s or RKE2.
#[must_use]
pub fn node_vip_danger(annotations: &BTreeMap<String, String>) -> Option<String> {
    NODE_ARGUMENTS_ANNOTATIONS.iter().find_map(|name| {
        let arguments: Vec<String> = serde_json::from_str(annotations.get(*name)?).ok()?;
        // For example ["server", "--kube-proxy-arg", "proxy-mode=ipvs"].
        let words: Vec<_> = arguments
            .iter()
            .map(|argument| argument.strip_prefix("--kube-proxy-arg=").unwrap_or(argument))
            .collect();
        let (fact, forbids_vip) = describe_mode(&find_mode_argument(&words)?);
        forbids_vip.then(|| format!("{fact} (annotation {name} of a node)"))
    })
}

/// Returns the fact about a mode of kube-proxy, and true if the mode forbids ipMode VIP.
fn describe_mode(mode: &str) -> (String, bool) {
    let is_ipvs = mode.eq_ignore_ascii_case("ipvs");
    let shown_mode = if mode.is_empty() { "its default mode" } else { &format!("{mode} mode") };
    let shown_mode = if is_ipvs { "IPVS mode" } else { shown_mode };
    (format!("kube-proxy runs in {shown_mode}"), is_ipvs)
}

/// Returns the mode in a configuration file of kube-proxy in YAML or JSON. Returns `None` for a file of another kind.
fn parse_mode(text: &str) -> Option<String> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).ok()?;
    documents.iter().find_map(|document| match document.get("mode")? {
        Value::String(mode) => Some(mode.trim().to_owned()),
        Value::Null => Some(String::new()),
        _ => None,
    })
}

/// Returns the value of the argument `proxy-mode`.
fn find_mode_argument(words: &[&str]) -> Option<String> {
    let remove_quotes = |text: &str| text.trim_matches(['"', '\'', ';']).to_owned();
    words.iter().enumerate().find_map(|(index, word)| {
        let argument = word.trim_matches(['"', '\'']).trim_start_matches("--").strip_prefix("proxy-mode")?;
        match argument.strip_prefix('=') {
            Some(mode) => Some(remove_quotes(mode)),
            None if argument.is_empty() => words.get(index + 1).map(|mode| remove_quotes(mode)),
            None => None,
        }
    })
}

/// Returns the fact about kube-proxy in a setting of Cilium, and true if the fact forbids ipMode VIP.
fn describe_cilium_setting(key: &str, value: &str) -> Option<(String, bool)> {
    (key == "kube-proxy-replacement").then_some(())?;
    let value = value.trim();
    let is_replaced = !["", "false", "disabled"].contains(&value);
    let verb = if is_replaced { "replaces" } else { "does not replace" };
    Some((format!("Cilium {verb} kube-proxy (kube-proxy-replacement is {value:?})"), is_replaced))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn danger_in_config_map(name: &str, key: &str, text: &str) -> Option<String> {
        let config_map = serde_json::from_value(json!({ "data": { key: text } })).unwrap();
        find_vip_danger(&config_map_findings(name, &config_map))
    }

    fn danger_in_pod(selector: &str, command: &[&str]) -> Option<String> {
        let containers = json!([{ "name": "main", "command": command }]);
        let pod = serde_json::from_value(json!({ "spec": { "containers": containers } })).unwrap();
        find_vip_danger(pod_finding(selector, &pod).as_slice())
    }

    #[test]
    fn ipvs_mode_is_detected_in_every_syntax() {
        for text in [
            "kind: KubeProxyConfiguration\nmode: ipvs\n",
            "mode: \"ipvs\"",
            "mode: ipvs # because of the load",
            "{\"kind\": \"KubeProxyConfiguration\", \"mode\": \"ipvs\"}",
            "apiVersion: v1\n---\nmode: 'ipvs'\n",
        ] {
            for (name, key) in [("kube-proxy", "config.conf"), ("kube-proxy-config", "config")] {
                let danger = danger_in_config_map(name, key, text);
                let place = format!("kube-proxy runs in IPVS mode (ConfigMap kube-system/{name}, key {key})");
                assert_eq!(danger, Some(place), "{text}");
            }
        }
    }

    #[test]
    fn modes_except_ipvs_and_files_without_a_mode_allow_vip() {
        for text in [
            "mode: \"\"\nipvs:\n  scheduler: rr\n",
            "mode: nftables",
            "# mode: ipvs\nmode: iptables",
            "apiVersion: v1\nkind: Config\nclusters: []",
            "not: [yaml",
            "nested:\n  mode: ipvs",
        ] {
            assert_eq!(danger_in_config_map("kube-proxy", "config.conf", text), None, "{text}");
        }
    }

    #[test]
    fn cilium_forbids_vip_if_it_replaces_kube_proxy() {
        for value in ["true", "strict", "partial", "probe"] {
            let danger = danger_in_config_map("cilium-config", "kube-proxy-replacement", value);
            assert!(danger.is_some_and(|danger| danger.starts_with("Cilium replaces kube-proxy")), "{value}");
        }
        for value in ["false", "disabled", ""] {
            assert_eq!(danger_in_config_map("cilium-config", "kube-proxy-replacement", value), None);
        }
        assert_eq!(danger_in_config_map("cilium-config", "mode", "ipvs"), None);
    }

    #[test]
    fn arguments_of_kube_proxy_pods_are_read() {
        for command in [
            vec!["kube-proxy", "--proxy-mode=ipvs"],
            vec!["kube-proxy", "--proxy-mode", "ipvs"],
            vec!["/bin/sh", "-c", "exec kube-proxy --proxy-mode=\"ipvs\" --v=2 >/var/log/kube-proxy.log"],
        ] {
            assert!(danger_in_pod("k8s-app=kube-proxy", &command).is_some(), "{command:?}");
        }
        for command in [
            vec!["kube-proxy", "--config=/var/lib/kube-proxy/config.conf"],
            vec!["kube-proxy", "--proxy-mode=nftables", "--ipvs-scheduler=rr"],
        ] {
            assert_eq!(danger_in_pod("component=kube-proxy", &command), None, "{command:?}");
        }
    }

    #[test]
    fn kube_router_forbids_vip_unless_its_service_proxy_is_disabled() {
        let selector = "k8s-app=kube-router";
        assert!(danger_in_pod(selector, &["--run-router=true", "--run-service-proxy=true"]).is_some());
        assert!(danger_in_pod(selector, &["--run-router=true"]).is_some());
        assert_eq!(danger_in_pod(selector, &["--run-service-proxy=false"]), None);
    }

    #[test]
    fn arguments_of_k3s_nodes_are_read() {
        let danger = |arguments: &str| {
            node_vip_danger(&BTreeMap::from([("k3s.io/node-args".to_owned(), arguments.to_owned())]))
        };
        for arguments in [
            r#"["server","--kube-proxy-arg","proxy-mode=ipvs"]"#,
            r#"["server","--kube-proxy-arg=proxy-mode=ipvs","--disable","servicelb"]"#,
        ] {
            let expected = "kube-proxy runs in IPVS mode (annotation k3s.io/node-args of a node)";
            assert_eq!(danger(arguments).as_deref(), Some(expected));
        }
        assert_eq!(danger(r#"["server","--disable","servicelb"]"#), None);
        assert_eq!(danger("ipvs"), None);
    }
}

//! Finds the nodes whose endpoints serve a Service. Pure.

use std::collections::BTreeSet;

use k8s_openapi::api::discovery::v1::Endpoint;

/// Returns the nodes with a ready endpoint. If no endpoint is ready, kube-proxy uses the terminating endpoints that
/// still serve. The function then returns the nodes of the terminating endpoints.
pub fn serving_nodes<'a>(endpoints: impl IntoIterator<Item = &'a Endpoint>) -> BTreeSet<String> {
    let endpoints: Vec<_> = endpoints.into_iter().collect();
    let nodes_with_endpoint = |is_used: fn(&Endpoint) -> bool| -> BTreeSet<String> {
        let endpoints = endpoints.iter().filter(|endpoint| is_used(endpoint));
        endpoints.filter_map(|endpoint| endpoint.node_name.clone()).collect()
    };
    let nodes_with_ready_endpoint = nodes_with_endpoint(is_ready);
    if nodes_with_ready_endpoint.is_empty() {
        nodes_with_endpoint(is_serving_while_terminating)
    } else {
        nodes_with_ready_endpoint
    }
}

/// Returns true if the endpoint is ready. An endpoint without the condition is ready
/// (<https://kubernetes.io/docs/reference/kubernetes-api/>, `EndpointSlice`).
fn is_ready(endpoint: &Endpoint) -> bool {
    endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true)
}

fn is_serving_while_terminating(endpoint: &Endpoint) -> bool {
    let conditions = endpoint.conditions.as_ref();
    conditions
        .is_some_and(|conditions| conditions.serving == Some(true) && conditions.terminating == Some(true))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn nodes(endpoints: &[(&str, Value)]) -> Vec<String> {
        let endpoint = |(node, conditions): &(&str, Value)| -> Endpoint {
            let endpoint = json!({ "addresses": ["10.1.0.1"], "nodeName": node, "conditions": conditions });
            serde_json::from_value(endpoint).unwrap()
        };
        let endpoints: Vec<_> = endpoints.iter().map(endpoint).collect();
        serving_nodes(&endpoints).into_iter().collect()
    }

    #[test]
    fn terminating_endpoint_serves_only_if_no_endpoint_is_ready() {
        let ready_conditions = || json!({ "ready": true, "serving": true, "terminating": false });
        let terminating_conditions = || json!({ "ready": false, "serving": true, "terminating": true });
        let ended_conditions = || json!({ "ready": false, "serving": false, "terminating": true });
        assert_eq!(nodes(&[("n1", terminating_conditions()), ("n2", ended_conditions())]), ["n1"]);
        assert_eq!(nodes(&[("n1", terminating_conditions()), ("n2", ready_conditions())]), ["n2"]);
        assert_eq!(nodes(&[("n1", json!({}))]), ["n1"]);
        assert!(nodes(&[("n1", json!({ "ready": false, "serving": true }))]).is_empty());
    }
}

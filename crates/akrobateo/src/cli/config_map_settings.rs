//! The settings that the operator's container reads from `ConfigMaps`. Reads from the API server.

use api_client::{call, error_chain};
use k8s_openapi::api::core::v1::{ConfigMap, Container, EnvVar};
use kube::{Api, Client};

use crate::metrics::Metrics;

/// Adds the settings in the container's `ConfigMaps` to the environment variables of the container. If a `ConfigMap`
/// cannot be read, prints a message; the settings in this `ConfigMap` then have their defaults.
pub(super) async fn add_config_map_settings(
    container: &mut Container,
    client: &Client,
    namespace: &str,
    metrics: &Metrics,
) {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let sources = container.env_from.clone().unwrap_or_default();
    // If several sources set a variable, Kubernetes uses the value in `env`, or the value of the last source if `env`
    // has no value. The loop appends the values of the last source first. The first value of a variable in `env` is
    // then the value that Kubernetes uses.
    for source in sources.into_iter().rev() {
        let (Some(reference), prefix) = (source.config_map_ref, source.prefix.unwrap_or_default()) else {
            continue;
        };
        match call(&metrics.api, "get", api.get(&reference.name)).await {
            Ok(config_map) => {
                let variables = config_map.data.into_iter().flatten();
                container.env.get_or_insert_default().extend(variables.map(|(name, value)| EnvVar {
                    name: format!("{prefix}{name}"),
                    value: Some(value),
                    value_from: None,
                }));
            }
            Err(error) => eprintln!(
                "akrobateo: cannot read the operator's settings in ConfigMap {namespace}/{}, using the defaults \
                 of these settings: {}",
                reference.name,
                error_chain(&error)
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use api_client::scripted_api::scripted_api;
    use serde_json::{Value, json};

    use super::*;

    fn container(config_maps: &[&str]) -> Container {
        let sources: Vec<_> =
            config_maps.iter().map(|name| json!({ "configMapRef": { "name": name } })).collect();
        let env = json!([{ "name": "IP_MODE", "value": "VIP" }]);
        serde_json::from_value(json!({ "name": "akrobateo", "env": env, "envFrom": sources })).unwrap()
    }

    fn config_map(data: &Value) -> Value {
        json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "settings" }, "data": data })
    }

    fn find_value<'a>(container: &'a Container, name: &str) -> Option<&'a str> {
        let mut variables = container.env.iter().flatten();
        variables.find(|variable| variable.name == name)?.value.as_deref()
    }

    #[tokio::test]
    async fn variables_of_the_container_override_its_config_maps() {
        let (client, mut api) = scripted_api();
        let server = tokio::spawn(async move {
            let last_source = json!({ "MAX_PORTS": "2", "REPLICAS": "3" });
            let first_source = json!({ "MAX_PORTS": "1", "IP_MODE": "Proxy", "WORKLOAD": "Shared" });
            for (name, data) in [("last", last_source), ("first", first_source)] {
                let request = api.next_request().await;
                assert_eq!(request.path, format!("/api/v1/namespaces/kube-system/configmaps/{name}"));
                request.answer(&config_map(&data));
            }
        });
        let mut container = container(&["first", "last"]);
        add_config_map_settings(&mut container, &client, "kube-system", &Metrics::new()).await;
        server.await.unwrap();
        let values = ["IP_MODE", "MAX_PORTS", "REPLICAS", "WORKLOAD", "INSTANCE"];
        let values = values.map(|name| find_value(&container, name));
        assert_eq!(values, [Some("VIP"), Some("2"), Some("3"), Some("Shared"), None]);
    }

    #[tokio::test]
    async fn unreadable_config_map_does_not_add_variables() {
        let (client, mut api) = scripted_api();
        let server = tokio::spawn(async move { api.next_request().await.answer_error(403, "Forbidden") });
        let mut container = container(&["settings"]);
        add_config_map_settings(&mut container, &client, "kube-system", &Metrics::new()).await;
        server.await.unwrap();
        assert_eq!(container.env.map(|variables| variables.len()), Some(1));
    }
}

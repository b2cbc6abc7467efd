//! `akrobateo render`: the workloads for the Services in a file. Reads the file or standard input; needs no cluster.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use akrobateo_services::allocation::{AllocationResult, NothingObserved, PortAllocations};
use akrobateo_services::key::ServiceKey;
use akrobateo_services::spec::{WorkloadSpec, ineligibility_reason};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::jiff::Timestamp;
use k8s_openapi::serde::Serialize;
use serde_json::Value;

use super::error::CliError;
use super::output;
use crate::decide::{ProxyDecision, ServiceState, Workload, decide};
use crate::reason::Reason;
use crate::settings::{OperatorConfig, ResolvedConfig};

/// Example cluster IPs for Services without cluster IPs in the file. The example IPs are documentation addresses (RFC
/// 5737, RFC 3849).
const EXAMPLE_CLUSTER_IPS: [(&str, &str); 2] = [("IPv4", "192.0.2.1"), ("IPv6", "2001:db8::1")];

/// The output format of `render`: the value of `--output`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    Yaml,
    Json,
}

/// Prints the workloads. If a Service does not get a workload, prints the reason to standard error and returns false.
pub(super) fn render(config: &OperatorConfig, file: &Path, format: Format) -> Result<bool, CliError> {
    let services = read_services(file)?;
    let config = config.resolve();
    let mut output = String::new();
    let mut all_services_rendered = true;
    for service in services.into_iter().map(with_api_server_defaults) {
        let key = ServiceKey::from_service(&service);
        match desired_workload_of_service(&config, service) {
            Ok(Some(Workload::DaemonSet(daemonset))) => {
                output.push_str(&encode(daemonset.as_ref(), format)?);
            }
            Ok(Some(Workload::Deployment(deployment))) => {
                output.push_str(&encode(deployment.as_ref(), format)?);
            }
            Ok(None) => eprintln!("akrobateo: Service {key} needs no proxies: the node agents forward it"),
            Err(reason) => {
                eprintln!("akrobateo: no proxies for Service {key}: {reason}");
                all_services_rendered = false;
            }
        }
    }
    output::write(&output)?;
    Ok(all_services_rendered)
}

fn encode(object: &impl Serialize, format: Format) -> Result<String, CliError> {
    match format {
        Format::Json => output::to_json(object),
        Format::Yaml => output::to_yaml(object).map(|text| format!("---\n{text}")),
    }
}

/// Returns the workload that the operator creates if the cluster has no other Service. Returns `None` if the node
/// agents forward the Service. The error is the reason why the operator does not expose the Service.
fn desired_workload_of_service(
    config: &ResolvedConfig,
    service: Service,
) -> Result<Option<Workload>, String> {
    let ResolvedConfig { proxy_config, defaults } = config;
    let service = Arc::new(service);
    if let Some(ineligibility) = ineligibility_reason(&service, defaults.is_default_class) {
        return Err(ineligibility.to_string());
    }
    let allocations =
        PortAllocations::default().update(std::slice::from_ref(&service), &[], defaults, &NothingObserved);
    let allocation_result = allocations.get(&ServiceKey::from_service(&service)).cloned();
    match &allocation_result {
        Some(AllocationResult::Rejected(error)) => return Err(format!("{}: {error}", Reason::from(error))),
        Some(AllocationResult::Accepted(spec, _)) if spec.workload == WorkloadSpec::Shared => {
            return Ok(None);
        }
        _ => (),
    }
    let state = ServiceState { service: Some(service), allocation_result, ..ServiceState::default() };
    match decide(proxy_config, &state, Timestamp::now()).proxy {
        ProxyDecision::RunWorkload(workload) => Ok(Some(workload)),
        ProxyDecision::DeleteWorkloads | ProxyDecision::KeepWorkloads => {
            Err("its ports belong to another Service".to_owned())
        }
    }
}

/// Returns the Service with the default values that the API server sets.
fn with_api_server_defaults(mut service: Service) -> Service {
    service.metadata.namespace.get_or_insert_with(|| "default".to_owned());
    let spec = service.spec.get_or_insert_default();
    let is_dual_stack = spec.ip_family_policy.as_deref().is_some_and(|policy| policy != "SingleStack");
    let families = spec.ip_families.get_or_insert_with(|| {
        let families = EXAMPLE_CLUSTER_IPS.iter().take(if is_dual_stack { 2 } else { 1 });
        families.map(|(family, _)| (*family).to_owned()).collect()
    });
    if spec.cluster_ip.is_none() {
        let example_ip = |family: &String| EXAMPLE_CLUSTER_IPS.iter().find(|(name, _)| name == family);
        let example_ips: Vec<_> =
            families.iter().filter_map(example_ip).map(|(_, ip)| (*ip).to_owned()).collect();
        spec.cluster_ip = example_ips.first().cloned();
        spec.cluster_ips = Some(example_ips);
    } else if spec.cluster_ips.is_none() {
        spec.cluster_ips = spec.cluster_ip.clone().map(|ip| vec![ip]);
    }
    service
}

/// Reads the Services of type LoadBalancer from a file; `-` is standard input.
fn read_services(file: &Path) -> Result<Vec<Service>, CliError> {
    let (name, text) = if file == Path::new("-") {
        let mut text = String::new();
        ("standard input".to_owned(), std::io::stdin().read_to_string(&mut text).map(|_| text))
    } else {
        (file.display().to_string(), std::fs::read_to_string(file))
    };
    let text = text.map_err(|source| CliError::Read { file: name.clone(), source })?;
    let services =
        parse_services(&text).map_err(|message| CliError::Parse { file: name.clone(), message })?;
    if services.is_empty() { Err(CliError::NothingToRender(name)) } else { Ok(services) }
}

/// Parses the Services of type LoadBalancer, including the Services in a List.
fn parse_services(text: &str) -> Result<Vec<Service>, String> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).map_err(|error| error.to_string())?;
    let mut services = Vec::new();
    for (number, document) in (1..).zip(documents) {
        let objects = match document.get("items").and_then(Value::as_array) {
            Some(items) => items.clone(),
            None => vec![document],
        };
        for object in objects.into_iter().filter(is_load_balancer) {
            let service = serde_json::from_value(object);
            services.push(service.map_err(|error| format!("document {number}: {error}"))?);
        }
    }
    Ok(services)
}

fn is_load_balancer(object: &Value) -> bool {
    let text = |pointer| object.pointer(pointer).and_then(Value::as_str);
    text("/kind") == Some("Service") && text("/spec/type") == Some("LoadBalancer")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::fixtures::{defaults, proxy_config};

    const MANIFEST: &str = "
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: LoadBalancer
  ports: [{port: 80, targetPort: 8080}]
---
# an object of another kind
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: List
items:
  - kind: Service
    metadata: {name: dns, namespace: shop}
    spec:
      type: LoadBalancer
      ipFamilyPolicy: PreferDualStack
      ports: [{port: 53, protocol: UDP}]
";

    fn workload_with_default_config(service: Service) -> Result<Option<Workload>, String> {
        desired_workload_of_service(
            &ResolvedConfig { proxy_config: proxy_config(), defaults: defaults() },
            with_api_server_defaults(service),
        )
    }

    #[test]
    fn services_are_found_among_other_objects_and_in_lists() {
        let services = parse_services(MANIFEST).unwrap();
        let names: Vec<_> = services.iter().map(|service| service.metadata.name.clone().unwrap()).collect();
        assert_eq!(names, ["web", "dns"]);
    }

    #[test]
    fn service_without_cluster_ips_gets_example_addresses() {
        let services = parse_services(MANIFEST).unwrap().into_iter().map(|mut service| {
            let annotations = service.metadata.annotations.get_or_insert_default();
            annotations.insert("akrobateo.io/ip-mode".to_owned(), "Proxy".to_owned());
            service
        });
        let arguments: Vec<_> = services
            .map(|service| workload_with_default_config(service).unwrap().unwrap().arguments())
            .collect();
        assert_eq!(arguments[0][0], "--forward=tcp/80=192.0.2.1:80");
        assert_eq!(
            arguments[1][..2],
            ["--forward=udp/53=192.0.2.1:53", "--forward=udp/53=[2001:db8::1]:53"].map(str::to_owned)
        );
    }

    #[test]
    fn yaml_output_is_a_complete_object() {
        let web_service = parse_services(MANIFEST).unwrap().remove(0);
        let Ok(Some(Workload::DaemonSet(daemonset))) = workload_with_default_config(web_service) else {
            panic!("no DaemonSet")
        };
        let text = encode(daemonset.as_ref(), Format::Yaml).unwrap();
        assert!(text.starts_with("---\n"), "{text}");
        for expected in
            ["kind: DaemonSet", "  namespace: akrobateo-proxies", "  name: akrobateo-default-web-ca4088a856"]
        {
            assert!(text.lines().any(|line| line == expected), "{expected:?} is not in\n{text}");
        }
        let decoded_object: Value = serde_saphyr::from_str(&text).unwrap();
        assert_eq!(decoded_object, serde_json::to_value(&daemonset).unwrap());
    }

    #[test]
    fn service_that_the_agents_forward_has_no_workload() {
        let mut service = parse_services(MANIFEST).unwrap().remove(0);
        service.metadata.annotations =
            Some([("akrobateo.io/workload".to_owned(), "Shared".to_owned())].into());
        assert_eq!(workload_with_default_config(service), Ok(None));
    }

    #[test]
    fn error_mentions_the_reason_of_a_rejected_or_ineligible_service() {
        let mut rejected_service = parse_services(MANIFEST).unwrap().remove(0);
        rejected_service.metadata.annotations =
            Some([("akrobateo.io/workload".to_owned(), "Pod".to_owned())].into());
        assert!(workload_with_default_config(rejected_service).unwrap_err().contains("InvalidAnnotation"));
        let mut ineligible_service = parse_services(MANIFEST).unwrap().remove(0);
        ineligible_service.spec.get_or_insert_default().load_balancer_class =
            Some("example.com/lb".to_owned());
        assert!(workload_with_default_config(ineligible_service).unwrap_err().contains("example.com/lb"));
    }

    #[test]
    fn invalid_yaml_and_invalid_services_are_errors() {
        assert!(parse_services("a: [").is_err());
        let error = parse_services("a: b\n---\nkind: Service\nspec: {type: LoadBalancer, ports: 80}");
        assert!(error.as_ref().is_err_and(|error| error.starts_with("document 2: ")), "{error:?}");
    }
}

//! `akrobateo render`: what would be made for the Services in a file. Reads the file; needs no cluster.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::jiff::Timestamp;
use k8s_openapi::serde::Serialize;

use super::error::CliError;
use super::output;
use crate::allocation::{Admission, HeldPorts, PortAllocations};
use crate::client::NAMESPACE_OUTSIDE;
use crate::decide::ServiceState;
use crate::decide::decide;
use crate::decide::{Placement, ProxyConfig, ProxyDecision, Workload};
use crate::key::ServiceKey;
use crate::settings::OperatorConfig;
use crate::spec::why_not_eligible;
use crate::spec::{IpMode, ServiceDefaults};

/// Stand in for the cluster IPs that only a cluster gives (RFC 5737 and RFC 3849: documentation).
const CLUSTER_IPS: [(&str, &str); 2] = [("IPv4", "192.0.2.1"), ("IPv6", "2001:db8::1")];

/// `--output` of `render`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    Yaml,
    Json,
}

/// Prints the workloads; tells on the standard error what is refused. False if anything is.
pub(super) fn render(settings: &OperatorConfig, file: &Path, format: Format) -> Result<bool, CliError> {
    let services = read(file)?;
    if services.is_empty() {
        return Err(CliError::NothingToRender(file.to_owned()));
    }
    let defaults = settings.defaults(IpMode::Vip);
    let placement = settings.lb_namespace.as_ref().map(|chosen| chosen.0.clone());
    let placement = placement.unwrap_or(Placement::Shared(NAMESPACE_OUTSIDE.to_owned()));
    let proxies = ProxyConfig { placement, image: settings.lb_image.clone() };
    let mut made = Vec::new();
    let mut granted = true;
    for service in services {
        let key = ServiceKey::from_service(&service);
        match workload(&proxies, &defaults, service) {
            Ok(workload) => made.push(workload),
            Err(why) => {
                eprintln!("akrobateo: {key} gets nothing: {why}");
                granted = false;
            }
        }
    }
    let parts: Result<Vec<_>, _> = made
        .iter()
        .map(|workload| match workload {
            Workload::DaemonSet(daemonset) => encode(daemonset.as_ref(), format),
            Workload::Deployment(deployment) => encode(deployment.as_ref(), format),
        })
        .collect();
    output::write(&parts?.concat())?;
    Ok(granted)
}

fn encode(object: &impl Serialize, format: Format) -> Result<String, CliError> {
    match format {
        Format::Json => output::json(object),
        Format::Yaml => output::yaml(object).map(|text| format!("---\n{text}")),
    }
}

/// The workload that the operator would make for one Service, alone in a cluster; or why it would not.
fn workload(
    settings: &ProxyConfig,
    defaults: &ServiceDefaults,
    service: Service,
) -> Result<Workload, String> {
    let service = Arc::new(completed(service));
    if let Some(why) = why_not_eligible(&service, defaults.default_class) {
        return Err(why.to_string());
    }
    let alone =
        PortAllocations::allocate(std::slice::from_ref(&service), &[], defaults, |_| HeldPorts::default());
    let admission = alone.get(&ServiceKey::from_service(&service)).cloned();
    if let Some(Admission::Rejected(refusal)) = &admission {
        return Err(format!("{}: {refusal}", refusal.reason()));
    }
    let observed = ServiceState { service: Some(service), admission, ..ServiceState::default() };
    match decide(settings, defaults, &observed, Timestamp::now()).proxy {
        ProxyDecision::Present(workload) => Ok(workload),
        ProxyDecision::Absent | ProxyDecision::Unchanged => Err("its ports are another's".to_owned()),
    }
}

/// The Service with what the API server would add.
fn completed(mut service: Service) -> Service {
    service.metadata.namespace.get_or_insert_with(|| "default".to_owned());
    let spec = service.spec.get_or_insert_default();
    let dual = spec.ip_family_policy.as_deref().is_some_and(|policy| policy != "SingleStack");
    let families = spec.ip_families.get_or_insert_with(|| {
        CLUSTER_IPS.iter().take(if dual { 2 } else { 1 }).map(|(family, _)| (*family).to_owned()).collect()
    });
    if spec.cluster_ip.is_none() {
        let ip = |family: &String| CLUSTER_IPS.iter().find(|(known, _)| known == family);
        let ips: Vec<_> = families.iter().filter_map(ip).map(|(_, ip)| (*ip).to_owned()).collect();
        spec.cluster_ip = ips.first().cloned();
        spec.cluster_ips = Some(ips);
    } else if spec.cluster_ips.is_none() {
        spec.cluster_ips = spec.cluster_ip.clone().map(|ip| vec![ip]);
    }
    service
}

/// The Services of type LoadBalancer in a file, also within a List.
fn read(file: &Path) -> Result<Vec<Service>, CliError> {
    let failed = |source| CliError::Read { file: file.to_owned(), source };
    let text = if file == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map(|_| text).map_err(failed)?
    } else {
        std::fs::read_to_string(file).map_err(failed)?
    };
    services(&text).map_err(|(number, problem)| CliError::Document { file: file.to_owned(), number, problem })
}

fn services(text: &str) -> Result<Vec<Service>, (usize, String)> {
    let documents: Vec<serde_json::Value> =
        serde_saphyr::from_multiple(text).map_err(|error| (1, error.to_string()))?;
    let mut services = Vec::new();
    for (index, document) in documents.into_iter().enumerate() {
        let items = match document.get("items").and_then(serde_json::Value::as_array) {
            Some(items) => items.clone(),
            None => vec![document],
        };
        for item in items.into_iter().filter(is_load_balancer) {
            let service = serde_json::from_value(item).map_err(|error| (index + 1, error.to_string()))?;
            services.push(service);
        }
    }
    Ok(services)
}

fn is_load_balancer(item: &serde_json::Value) -> bool {
    let text = |pointer| item.pointer(pointer).and_then(serde_json::Value::as_str);
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
# another kind is none of ours
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

    fn made(service: Service) -> Result<Workload, String> {
        workload(&proxy_config(), &defaults(), service)
    }

    #[test]
    fn services_are_found_among_other_objects_and_in_lists() {
        let found = services(MANIFEST).unwrap();
        let names: Vec<_> = found.iter().map(|service| service.metadata.name.clone().unwrap()).collect();
        assert_eq!(names, ["web", "dns"]);
    }

    #[test]
    fn what_only_a_cluster_knows_is_stood_in_for() {
        let arguments: Vec<_> = services(MANIFEST)
            .unwrap()
            .into_iter()
            .map(|service| made(service).unwrap().arguments())
            .collect();
        assert_eq!(arguments[0][0], "--forward=tcp/80=192.0.2.1:80");
        assert_eq!(
            arguments[1][..2],
            ["--forward=udp/53=192.0.2.1:53", "--forward=udp/53=[2001:db8::1]:53"].map(str::to_owned)
        );
    }

    #[test]
    fn the_objects_are_printed_as_kubectl_takes_them() {
        let web = services(MANIFEST).unwrap().remove(0);
        let Ok(Workload::DaemonSet(daemonset)) = made(web) else { panic!("no DaemonSet") };
        let text = encode(daemonset.as_ref(), Format::Yaml).unwrap();
        assert!(text.starts_with("---\n"), "{text}");
        for line in ["kind: DaemonSet", "  namespace: kube-system", "  name: akrobateo-default-web"] {
            assert!(text.lines().any(|is| is == line), "{line:?} is not in\n{text}");
        }
        let back: serde_json::Value = serde_saphyr::from_str(&text).unwrap();
        assert_eq!(back, serde_json::to_value(&daemonset).unwrap());
    }

    #[test]
    fn what_is_refused_says_why() {
        let mut service = services(MANIFEST).unwrap().remove(0);
        service.metadata.annotations = Some([("akrobateo.io/workload".to_owned(), "Pod".to_owned())].into());
        assert!(made(service).unwrap_err().contains("InvalidAnnotation"));
        let mut other = services(MANIFEST).unwrap().remove(0);
        other.spec.get_or_insert_default().load_balancer_class = Some("example.com/lb".to_owned());
        assert!(made(other).unwrap_err().contains("example.com/lb"));
    }

    #[test]
    fn a_file_that_is_no_yaml_is_an_error() {
        assert!(services("a: [").is_err());
        assert!(services("kind: Service\nspec: {type: LoadBalancer, ports: 80}").is_err());
    }
}

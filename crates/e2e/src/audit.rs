//! The requests of the operator and of the node agents to the API server, read from the server's audit log. Does I/O.

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use serde_json::Value;

use crate::environment;
use crate::failure::Failure;
use crate::operator::{OPERATOR_ACCOUNT, OPERATOR_NAMESPACE};

/// A completed request. The log contains a watch only after the end of the watch.
#[derive(Clone, Debug)]
pub struct ApiRequest {
    /// The API group; empty for the core group.
    pub api_group: String,
    /// The resource and subresource, written as in RBAC rules, for example `services/status`.
    pub resource: String,
    /// The verb, written as in RBAC rules.
    pub verb: String,
    /// The object's name; empty for a list or a watch.
    pub object_name: String,
    /// The HTTP status code of the response.
    pub status_code: u64,
    /// True if RBAC allowed the request. The API server may still reject the request for another reason.
    pub is_allowed: bool,
    /// True if RBAC denied the request. Without an authorization decision, both `is_allowed` and `is_forbidden` are
    /// false.
    pub is_forbidden: bool,
    /// The time at which the API server received the request.
    pub received_at: Timestamp,
    /// The name of the operator's pod that made the request.
    pub pod_name: String,
}

impl ApiRequest {
    /// Returns true if the verb changes objects.
    #[must_use]
    pub fn is_write(&self) -> bool {
        !["get", "list", "watch"].contains(&self.verb.as_str())
    }
}

/// Returns all requests of the operator, in the order of the log.
pub fn read_operator_requests() -> Result<Vec<ApiRequest>, Failure> {
    read_requests_of_account(OPERATOR_ACCOUNT)
}

/// Returns all requests of a ServiceAccount in the operator's namespace, in the order of the log.
pub fn read_requests_of_account(account: &str) -> Result<Vec<ApiRequest>, Failure> {
    let path = environment::AUDIT_LOG_PATH.read_value()?;
    let text = std::fs::read_to_string(&path).map_err(|error| Failure::File(path.clone(), error))?;
    let user = format!("system:serviceaccount:{OPERATOR_NAMESPACE}:{account}");
    let mut requests = Vec::new();
    for line in text.lines() {
        let invalid_line_failure =
            |reason: &str| Failure::UnexpectedState(format!("{path}: {reason}: {line}"));
        let entry: Value =
            serde_json::from_str(line).map_err(|error| invalid_line_failure(&error.to_string()))?;
        if entry["user"]["username"] == user.as_str() {
            requests.push(parse(&entry).ok_or_else(|| invalid_line_failure("a field is missing"))?);
        }
    }
    Ok(requests)
}

/// Returns the requests that this pod of the operator made.
pub fn read_requests_from_pod(pod: &Pod) -> Result<Vec<ApiRequest>, Failure> {
    let name = pod.name_any();
    Ok(read_operator_requests()?.into_iter().filter(|request| request.pod_name == name).collect())
}

fn parse(entry: &Value) -> Option<ApiRequest> {
    let to_text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let object = &entry["objectRef"];
    let (resource, subresource) = (to_text(&object["resource"]), to_text(&object["subresource"]));
    let received_at: MicroTime = serde_json::from_value(entry["requestReceivedTimestamp"].clone()).ok()?;
    Some(ApiRequest {
        api_group: to_text(&object["apiGroup"]),
        resource: if subresource.is_empty() { resource } else { format!("{resource}/{subresource}") },
        verb: entry["verb"].as_str()?.to_owned(),
        object_name: to_text(&object["name"]),
        status_code: entry["responseStatus"]["code"].as_u64()?,
        is_allowed: entry["annotations"]["authorization.k8s.io/decision"] == "allow",
        is_forbidden: entry["annotations"]["authorization.k8s.io/decision"] == "forbid",
        received_at: received_at.0,
        pod_name: to_text(&entry["user"]["extra"]["authentication.kubernetes.io/pod-name"][0]),
    })
}

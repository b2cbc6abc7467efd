//! What the operator asked the API server for, by the server's audit log. Does I/O.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use serde_json::Value;

use crate::{Failure, environment};

/// Whom the log tells about.
pub(crate) const OPERATOR_ACCOUNT: (&str, &str) = ("kube-system", "akrobateo");

/// One request of the operator's that has come to its end. A watch's end is the watching client's own.
#[derive(Clone, Debug)]
pub struct Request {
    /// The API group, empty for the core.
    pub group: String,
    /// Resource and subresource, as in roles: `services/status`.
    pub resource: String,
    /// The verb, as in roles.
    pub verb: String,
    /// The object's name, unless it is about many.
    pub name: String,
    /// HTTP status of the response.
    pub code: u64,
    /// Whether the operator's roles allow it; the API server may still refuse it for other reasons.
    pub allowed: bool,
    /// Whether they forbid it; neither, where it was refused before anybody looked at roles.
    pub forbidden: bool,
    /// When it was made.
    pub at: Timestamp,
    /// The pod that made it.
    pub pod: String,
}

impl Request {
    /// Whether it changes something.
    #[must_use]
    pub fn is_write(&self) -> bool {
        !["get", "list", "watch"].contains(&self.verb.as_str())
    }
}

/// All of the operator's requests, in the log's order.
pub fn requests() -> Result<Vec<Request>, Failure> {
    let path = environment::AUDIT_LOG.read()?;
    let text = std::fs::read_to_string(&path).map_err(|error| Failure::File(path.clone(), error))?;
    let (namespace, name) = OPERATOR_ACCOUNT;
    let account = format!("system:serviceaccount:{namespace}:{name}");
    let mut requests = Vec::new();
    for line in text.lines() {
        let unreadable = |what: &str| Failure::Unmet(format!("{path}: {what}: {line}"));
        let entry: Value = serde_json::from_str(line).map_err(|error| unreadable(&error.to_string()))?;
        if entry["user"]["username"] == account.as_str() {
            requests.push(request(&entry).ok_or_else(|| unreadable("a part is missing"))?);
        }
    }
    Ok(requests)
}

/// The requests that were made by this pod.
pub fn requests_of(pod: &k8s_openapi::api::core::v1::Pod) -> Result<Vec<Request>, Failure> {
    let name = pod.name_any();
    Ok(requests()?.into_iter().filter(|request| request.pod == name).collect())
}

fn request(entry: &Value) -> Option<Request> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let object = &entry["objectRef"];
    let (resource, part) = (text(&object["resource"]), text(&object["subresource"]));
    let at: MicroTime = serde_json::from_value(entry["requestReceivedTimestamp"].clone()).ok()?;
    Some(Request {
        group: text(&object["apiGroup"]),
        resource: if part.is_empty() { resource } else { format!("{resource}/{part}") },
        verb: entry["verb"].as_str()?.to_owned(),
        name: text(&object["name"]),
        code: entry["responseStatus"]["code"].as_u64()?,
        allowed: entry["annotations"]["authorization.k8s.io/decision"] == "allow",
        forbidden: entry["annotations"]["authorization.k8s.io/decision"] == "forbid",
        at: at.0,
        pod: text(&entry["user"]["extra"]["authentication.kubernetes.io/pod-name"][0]),
    })
}

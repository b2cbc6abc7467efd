//! A scripted API server for tests: a test reads each request of a client and answers it. No I/O.

use std::pin::Pin;
use std::time::Duration;

use http::{Method, Request, Response};
use k8s_openapi::serde::Serialize;
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::time::timeout;
use tower_test::mock::{self, Handle, SendResponse};

/// The time during which a test expects no request. Tests pause the clock, so the wait ends at once.
const QUIET_PERIOD: Duration = Duration::from_millis(500);
/// The longest wait for a request.
const REQUEST_TIMEOUT: Duration = Duration::from_mins(2);

/// The server of a test client.
pub struct ScriptedApi {
    server_handle: Pin<Box<Handle<Request<Body>, Response<Body>>>>,
    /// The watches of kinds that the test does not script. These watches stay open.
    open_watches: Vec<ReceivedRequest>,
}

/// A request that waits for its answer. If a test drops the request, the client sees an error.
pub struct ReceivedRequest {
    pub method: Method,
    pub path: String,
    pub query: String,
    pub body: Value,
    responder: SendResponse<Response<Body>>,
}

/// Returns a client and its scripted server.
pub fn scripted_api() -> (Client, ScriptedApi) {
    let (service, server_handle) = mock::pair::<Request<Body>, Response<Body>>();
    let api = ScriptedApi { server_handle: Box::pin(server_handle), open_watches: Vec::new() };
    (Client::new(service, "default"), api)
}

impl ScriptedApi {
    /// Waits for the next request.
    pub async fn next_request(&mut self) -> ReceivedRequest {
        let (request, responder) = timeout(REQUEST_TIMEOUT, self.server_handle.next_request())
            .await
            .expect("the client sends no request")
            .expect("the client no longer exists");
        let (parts, body) = request.into_parts();
        let body = body.collect_bytes().await.unwrap();
        ReceivedRequest {
            method: parts.method,
            path: parts.uri.path().to_owned(),
            query: parts.uri.query().unwrap_or_default().to_owned(),
            body: serde_json::from_slice(&body).unwrap_or_default(),
            responder,
        }
    }

    /// Waits for the next request to a path that ends with one of `paths`. Answers each read request for another path
    /// with an empty list. Watches stay open.
    pub async fn next_request_to(&mut self, paths: &[&str]) -> ReceivedRequest {
        loop {
            let request = self.next_request().await;
            if paths.iter().any(|path| request.path.ends_with(path)) {
                return request;
            }
            self.answer_unscripted_read(request);
        }
    }

    /// Waits for the next write. The path of the write must contain `path`. Answers each read request with an empty
    /// list. Watches stay open.
    pub async fn next_write_to(&mut self, path: &str) -> ReceivedRequest {
        loop {
            let request = self.next_request().await;
            if request.method != Method::GET {
                assert!(request.path.contains(path), "unexpected write to {}", request.path);
                return request;
            }
            self.answer_unscripted_read(request);
        }
    }

    /// Answers each list request with the objects of the requested kind and namespace that match the label selector.
    /// Watches stay open.
    pub async fn serve_lists(mut self, objects: Vec<Value>) {
        loop {
            let request = self.next_request().await;
            if request.is_watch() {
                self.open_watches.push(request);
            } else {
                let selected_objects: Vec<_> =
                    objects.iter().filter(|object| request.selects(object)).cloned().collect();
                request.answer_list(&selected_objects);
            }
        }
    }

    /// Answers a list request with an empty list. A watch stays open.
    pub fn answer_unscripted_read(&mut self, request: ReceivedRequest) {
        assert_eq!(request.method, Method::GET, "unexpected write to {}", request.path);
        if request.is_watch() {
            self.open_watches.push(request);
        } else {
            request.answer_list(&[]);
        }
    }

    /// Asserts that the client does not send requests within [`QUIET_PERIOD`].
    pub async fn expect_no_request(&mut self) {
        let request = timeout(QUIET_PERIOD, self.server_handle.next_request()).await;
        if let Ok(Some((request, _))) = request {
            panic!("unexpected request: {} {}", request.method(), request.uri());
        }
    }
}

impl ReceivedRequest {
    pub fn is_watch(&self) -> bool {
        self.query.contains("watch=true")
    }

    /// Returns true if the list request selects the object by its kind, namespace and labels.
    fn selects(&self, object: &Value) -> bool {
        let kind = object["kind"].as_str().unwrap_or_default().to_lowercase();
        let namespace = object["metadata"]["namespace"].as_str().unwrap_or_default();
        let is_in_namespace =
            !self.path.contains("/namespaces/") || self.path.contains(&format!("/namespaces/{namespace}/"));
        let query = self.query.replace("%2F", "/").replace("%3D", "=").replace("%2C", ",");
        let selector = query.split('&').find_map(|parameter| parameter.strip_prefix("labelSelector="));
        let has_labels = selector.iter().flat_map(|selector| selector.split(',')).all(|label| {
            let (key, value) = label.split_once('=').unwrap_or((label, ""));
            object["metadata"]["labels"][key].as_str() == Some(value)
        });
        self.path.ends_with(&format!("/{kind}s")) && is_in_namespace && has_labels
    }

    /// Answers with an object.
    pub fn answer(self, object: &impl Serialize) {
        self.send(200, serde_json::to_vec(object).unwrap());
    }

    /// Answers with an error in the API server's format.
    pub fn answer_error(self, code: u16, reason: &str) {
        let status = error_status(code, reason);
        self.send(code, serde_json::to_vec(&status).unwrap());
    }

    /// Answers a list request.
    pub fn answer_list(self, items: &[Value]) {
        let list = json!({ "apiVersion": "v1", "kind": "List", "metadata": { "resourceVersion": "1" }, "items": items });
        self.answer(&list);
    }

    /// Answers a watch request with events of the given types, and ends the watch.
    pub fn answer_watch(self, events: &[(&str, Value)]) {
        let lines: Vec<_> = events
            .iter()
            .map(|(event_type, object)| format!("{}\n", json!({ "type": event_type, "object": object })))
            .collect();
        self.send(200, lines.concat().into_bytes());
    }

    /// Answers with the object of the request, as the API server does after a successful write.
    pub fn accept(self) {
        let body = self.body.clone();
        self.answer(&body);
    }

    /// Accepts the request, as [`Self::accept`] does, and returns the reason of the event in the request.
    pub fn accept_event_and_get_reason(self) -> String {
        let reason = self.body["reason"].as_str().unwrap_or_default().to_owned();
        self.accept();
        reason
    }

    fn send(self, code: u16, body: Vec<u8>) {
        self.responder.send_response(Response::builder().status(code).body(Body::from(body)).unwrap());
    }
}

/// Returns the Status object that the API server sends for an error.
pub fn error_status(code: u16, reason: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure",
        "message": format!("scripted: {reason}"), "reason": reason, "code": code,
    })
}

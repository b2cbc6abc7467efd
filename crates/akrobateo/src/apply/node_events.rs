//! Emits events of nodes, which `kubectl describe node` shows. Does I/O.

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::PostParams;

use super::Writer;
use crate::call::{CallError, call};
use crate::node_info::NodeAddressError;
use crate::reason::Reason;

/// The namespace of events about objects that have no namespace.
const NAMESPACE: &str = "default";

impl Writer {
    /// Emits a Warning about the annotation of a node.
    ///
    /// The name depends on the message only, so the same error has one event, also after a restart of the operator.
    pub(crate) async fn warn_of_address(
        &self,
        error: &NodeAddressError,
        now: Timestamp,
    ) -> Result<(), CallError> {
        let note = error.to_string();
        let regarding = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Node".to_owned()),
            name: Some(error.node.clone()),
            // The kubelet writes the node's name as the UID. kubectl therefore also finds events with the name as the
            // UID.
            uid: Some(error.node.clone()),
            ..ObjectReference::default()
        };
        let event = Event {
            metadata: ObjectMeta {
                name: Some(format!("{}.{}-{}", error.node, self.instance, akrobateo_core::digest(&note))),
                namespace: Some(NAMESPACE.to_owned()),
                ..ObjectMeta::default()
            },
            action: Some("ReadNode".to_owned()),
            ..self.event(Reason::InvalidNodeAddress, &note, regarding, now)
        };
        let api: Api<Event> = Api::namespaced(self.client.clone(), NAMESPACE);
        match call(&self.metrics, "publish_event", api.create(&PostParams::default(), &event)).await {
            Err(error) if !error.is_conflict() => Err(error),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::fixtures::{INSTANCE, at, node};
    use crate::metrics::Metrics;
    use crate::node_info::NodeInfo;
    use crate::scripted_api::scripted_api;

    #[tokio::test(start_paused = true)]
    async fn an_invalid_annotation_of_a_node_is_reported_once() {
        let (client, mut api) = scripted_api();
        let writer = Writer::new(client, INSTANCE, Metrics::new());
        let node = node("n1").annotation("akrobateo.io/address", "oops").build();
        let error = NodeInfo::from_node(&node).address_error.unwrap();
        let (result, name) = tokio::join!(writer.warn_of_address(&error, at(1)), async {
            let request = api.next_request().await;
            assert_eq!(request.path, "/apis/events.k8s.io/v1/namespaces/default/events");
            assert_eq!(request.body["regarding"]["kind"], "Node");
            assert_eq!(request.body["reason"], "InvalidNodeAddress");
            assert!(request.body["note"].as_str().unwrap().contains("\"oops\""));
            let name = request.body["metadata"]["name"].clone();
            request.accept();
            name
        });
        result.unwrap();
        let (result, ()) = tokio::join!(writer.warn_of_address(&error, at(2)), async {
            let request = api.next_request().await;
            assert_eq!(request.body["metadata"]["name"], name);
            request.answer_error(409, "AlreadyExists");
        });
        result.unwrap();
    }
}

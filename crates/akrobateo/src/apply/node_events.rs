//! Emits events of nodes, which `kubectl describe node` shows. Does I/O.

use akrobateo_services::node_info::NodeAddressError;
use api_client::{CallError, call};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::PostParams;

use super::Writer;
use crate::reason::Reason;

/// The namespace of events about objects that have no namespace.
const NODE_EVENT_NAMESPACE: &str = "default";

impl Writer {
    /// Emits a Warning event about an invalid annotation of a node.
    ///
    /// The name of the event depends only on the node, the operator instance and the message. Each error therefore has
    /// one event, even if the operator restarts.
    pub(crate) async fn emit_address_warning(
        &self,
        error: &NodeAddressError,
        now: Timestamp,
    ) -> Result<(), CallError> {
        let note = error.to_string();
        let regarding = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Node".to_owned()),
            name: Some(error.node.clone()),
            // `kubectl describe node` also finds events with the node's name as the UID of the node, because the
            // kubelet writes this UID in its events.
            uid: Some(error.node.clone()),
            ..ObjectReference::default()
        };
        let event = Event {
            metadata: ObjectMeta {
                name: Some(format!(
                    "{}.{}-{}",
                    error.node,
                    self.operator_instance,
                    akrobateo_core::digest(&note)
                )),
                namespace: Some(NODE_EVENT_NAMESPACE.to_owned()),
                ..ObjectMeta::default()
            },
            action: Some("ReadNode".to_owned()),
            ..self.build_event(Reason::InvalidNodeAddress, &note, regarding, now)
        };
        let api: Api<Event> = Api::namespaced(self.client.clone(), NODE_EVENT_NAMESPACE);
        match call(&self.metrics.api, "publish_event", api.create(&PostParams::default(), &event)).await {
            Err(error) if !error.is_conflict() => Err(error),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use akrobateo_services::node_info::NodeInfo;
    use api_client::scripted_api::scripted_api;

    use super::*;
    use crate::decide::fixtures::{INSTANCE, at, node};
    use crate::metrics::Metrics;

    #[tokio::test(start_paused = true)]
    async fn invalid_node_annotation_is_reported_once() {
        let (client, mut api) = scripted_api();
        let writer = Writer::new(client, INSTANCE, Metrics::new());
        let node = node("n1").annotation("akrobateo.io/address", "oops").build();
        let error = NodeInfo::from_node(&node).address_error.unwrap();
        let (result, name) = tokio::join!(writer.emit_address_warning(&error, at(1)), async {
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
        let (result, ()) = tokio::join!(writer.emit_address_warning(&error, at(2)), async {
            let request = api.next_request().await;
            assert_eq!(request.body["metadata"]["name"], name);
            request.answer_error(409, "AlreadyExists");
        });
        result.unwrap();
    }
}

//! The operator reverts manual edits of the proxies' DaemonSet.

use e2e::{
    Failure, Namespace, PROXIES_NAMESPACE, ServiceBuilder, ensure, ensure_eq, eventually,
    exposed_service_test_in_dedicated_mode, service,
};
use k8s_openapi::api::apps::v1::DaemonSet;
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::json;

fn build_web_service(port: u16) -> ServiceBuilder {
    service("web").tcp(port).with_ip_mode_proxy()
}

fn daemonsets(namespace: &Namespace) -> Api<DaemonSet> {
    Api::namespaced(namespace.cluster().client.clone(), PROXIES_NAMESPACE)
}

#[tokio::test]
async fn operator_recreates_a_deleted_daemonset() -> Result<(), Failure> {
    exposed_service_test_in_dedicated_mode(build_web_service, async |namespace, web| {
        let deleted_daemonset = namespace.get_daemonset(&web).await?;
        daemonsets(namespace).delete(&deleted_daemonset.name_any(), &DeleteParams::default()).await?;
        eventually("the Service has a new DaemonSet", async || {
            let current_daemonset = namespace.get_daemonset(&web).await?;
            ensure(current_daemonset.uid() != deleted_daemonset.uid(), || {
                format!("the DaemonSet's UID is still {:?}", deleted_daemonset.uid())
            })
        })
        .await?;
        namespace.wait_rolled_out(&web).await?;
        namespace.wait_exposed(&web).await.map(drop)
    })
    .await
}

#[tokio::test]
async fn operator_reverts_changed_fields_of_a_daemonset() -> Result<(), Failure> {
    exposed_service_test_in_dedicated_mode(build_web_service, async |namespace, web| {
        let original_daemonset = namespace.wait_rolled_out(&web).await?;
        for (field, value) in [("args/0", "--help"), ("image", "example.com/x:1")] {
            let field_pointer = format!("/spec/template/spec/containers/0/{field}");
            let patch_operations = json!([{ "op": "replace", "path": field_pointer, "value": value }]);
            let patch: Patch<()> =
                Patch::Json(serde_json::from_value(patch_operations).expect("a valid patch"));
            let edited_daemonset = daemonsets(namespace)
                .patch(&original_daemonset.name_any(), &PatchParams::default(), &patch)
                .await?;
            eventually("the DaemonSet has its original spec again", async || {
                let current_daemonset = namespace.get_daemonset(&web).await?;
                ensure(current_daemonset.metadata.generation > edited_daemonset.metadata.generation, || {
                    format!("the DaemonSet's generation is still {:?}", edited_daemonset.metadata.generation)
                })?;
                ensure_eq("spec", &current_daemonset.spec, &original_daemonset.spec)
            })
            .await?;
        }
        namespace.wait_rolled_out(&web).await?;
        namespace.wait_exposed(&web).await.map(drop)
    })
    .await
}

#[tokio::test]
async fn operator_removes_added_fields_of_a_daemonset_except_the_restart_annotation() -> Result<(), Failure> {
    exposed_service_test_in_dedicated_mode(build_web_service, async |namespace, web| {
        let original_daemonset = namespace.wait_rolled_out(&web).await?;
        let patch_template = async |template| {
            let patch = Patch::Merge(json!({ "spec": { "template": template } }));
            daemonsets(namespace).patch(&original_daemonset.name_any(), &PatchParams::default(), &patch).await
        };
        patch_template(json!({ "spec": { "nodeSelector": { "no": "node" }, "hostPID": true } })).await?;
        eventually("the DaemonSet has its original spec again", async || {
            ensure_eq("spec", &namespace.get_daemonset(&web).await?.spec, &original_daemonset.spec)
        })
        .await?;
        namespace.wait_rolled_out(&web).await?;
        // The annotation that `kubectl rollout restart` sets.
        let annotations = json!({ "kubectl.kubernetes.io/restartedAt": "2026-01-01T00:00:00Z" });
        let restarted_daemonset =
            patch_template(json!({ "metadata": { "annotations": annotations } })).await?;
        namespace.wait_operator_synced().await?;
        let rolled_out_daemonset = namespace.wait_rolled_out(&web).await?;
        ensure_eq(
            "generation",
            &rolled_out_daemonset.metadata.generation,
            &restarted_daemonset.metadata.generation,
        )?;
        ensure_eq("UID", &rolled_out_daemonset.uid(), &restarted_daemonset.uid())?;
        namespace.wait_exposed(&web).await.map(drop)
    })
    .await
}

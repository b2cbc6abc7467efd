//! What somebody does to the proxies by hand is put right.

use e2e::{Failure, OPERATOR_NAMESPACE, ensure, eventually, same, service, test};
use k8s_openapi::api::apps::v1::DaemonSet;
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::json;

#[tokio::test]
async fn a_daemonset_deleted_by_hand_is_made_again() -> Result<(), Failure> {
    test(async |namespace| {
        namespace.backend().await?;
        let [port] = namespace.ports().await?;
        let web = service("web").tcp(port).proxy_mode();
        namespace.apply(&web).await?;
        namespace.exposed(&web).await?;
        let old = namespace.daemonset(&web).await?;
        let api: Api<DaemonSet> = Api::namespaced(namespace.cluster().client.clone(), OPERATOR_NAMESPACE);
        api.delete(&old.name_any(), &DeleteParams::default()).await?;
        eventually("another DaemonSet is there", async || {
            let new = namespace.daemonset(&web).await?;
            ensure(new.metadata.uid != old.metadata.uid, || "it is still the old one".to_owned())
        })
        .await?;
        namespace.rolled_out(&web).await?;
        namespace.exposed(&web).await.map(drop)
    })
    .await
}

#[tokio::test]
async fn a_daemonset_edited_by_hand_is_put_right() -> Result<(), Failure> {
    test(async |namespace| {
        namespace.backend().await?;
        let [port] = namespace.ports().await?;
        let web = service("web").tcp(port).proxy_mode();
        namespace.apply(&web).await?;
        namespace.exposed(&web).await?;
        let right = namespace.rolled_out(&web).await?;
        let api: Api<DaemonSet> = Api::namespaced(namespace.cluster().client.clone(), OPERATOR_NAMESPACE);
        for wrong in [
            json!([{ "op": "replace", "path": "/spec/template/spec/containers/0/args/0", "value": "--help" }]),
            json!([{ "op": "replace", "path": "/spec/template/spec/containers/0/image", "value": "example.com/x:1" }]),
        ] {
            let patch: Patch<()> = Patch::Json(serde_json::from_value(wrong).expect("a patch"));
            let edited = api.patch(&right.name_any(), &PatchParams::default(), &patch).await?;
            eventually("the DaemonSet is as before", async || {
                let now = namespace.daemonset(&web).await?;
                ensure(now.metadata.generation > edited.metadata.generation, || "not touched since".to_owned())?;
                same("spec", &now.spec, &right.spec)
            })
            .await?;
        }
        namespace.rolled_out(&web).await?;
        namespace.exposed(&web).await.map(drop)
    })
    .await
}

#[tokio::test]
async fn what_is_added_to_a_daemonset_by_hand_is_taken_away_and_a_restart_by_hand_is_left_alone()
-> Result<(), Failure> {
    test(async |namespace| {
        namespace.backend().await?;
        let [port] = namespace.ports().await?;
        let web = service("web").tcp(port).proxy_mode();
        namespace.apply(&web).await?;
        namespace.exposed(&web).await?;
        let right = namespace.rolled_out(&web).await?;
        let api: Api<DaemonSet> = Api::namespaced(namespace.cluster().client.clone(), OPERATOR_NAMESPACE);
        let edit = async |spec| {
            let edited = Patch::Merge(json!({ "spec": { "template": spec } }));
            api.patch(&right.name_any(), &PatchParams::default(), &edited).await
        };
        edit(json!({ "spec": { "nodeSelector": { "no": "node" }, "hostPID": true } })).await?;
        eventually("the DaemonSet is as before", async || {
            same("spec", &namespace.daemonset(&web).await?.spec, &right.spec)
        })
        .await?;
        namespace.rolled_out(&web).await?;
        let restarted = json!({ "kubectl.kubernetes.io/restartedAt": "2026-01-01T00:00:00Z" });
        let restart = edit(json!({ "metadata": { "annotations": restarted } })).await?;
        namespace.operator_caught_up().await?;
        let rolled = namespace.rolled_out(&web).await?;
        same("its generation", &rolled.metadata.generation, &restart.metadata.generation)?;
        same("its UID", &rolled.metadata.uid, &restart.metadata.uid)?;
        namespace.exposed(&web).await.map(drop)
    })
    .await
}

//! Tests of the commands for administrators on a cluster with a deployed operator. They do I/O.

use std::path::PathBuf;

use e2e::{Failure, Namespace, Said, ensure, eventually, same, service, test};
use serde_json::Value;

/// Returns the output of `akrobateo status` for the namespace, and its rows.
async fn run_status(namespace: &Namespace) -> Result<(Said, Vec<Value>), Failure> {
    let output = namespace.akrobateo(&["status", "-n", namespace.name(), "-o", "json"]).await?;
    let rows = output.json()?.as_array().cloned().unwrap_or_default();
    Ok((output, rows))
}

#[tokio::test]
async fn status_shows_the_published_addresses_and_exits_with_0() -> Result<(), Failure> {
    test(async |namespace| {
        namespace.backend().await?;
        let [port] = namespace.ports().await?;
        let web = service("web").tcp(port).udp(port);
        namespace.apply(&web).await?;
        namespace.exposed(&web).await?;
        let nodes = namespace.cluster().nodes().await?;
        let (output, rows) = run_status(namespace).await?;
        same("exit code", &output.code, &Some(0))?;
        same("rows", &rows.len(), &1)?;
        same("state", &rows[0]["reason"], &"Exposed".into())?;
        same("ready", &rows[0]["ready"], &nodes.len().into())?;
        same("wanted", &rows[0]["wanted"], &nodes.len().into())?;
        let mut shown: Vec<_> = rows[0]["addresses"].as_array().into_iter().flatten().cloned().collect();
        let ingress = namespace.service(&web).await?.status.and_then(|status| status.load_balancer);
        let ingress = ingress.and_then(|status| status.ingress).unwrap_or_default();
        let mut published: Vec<Value> = ingress.into_iter().map(|entry| entry.ip.into()).collect();
        shown.sort_by_key(Value::to_string);
        published.sort_by_key(Value::to_string);
        same("addresses", &shown, &published)?;
        let text = namespace.akrobateo(&["status", "-n", namespace.name()]).await?.text;
        ensure(!text.contains('\x1b'), || format!("colors without a terminal: {text}"))?;
        ensure(text.contains(&format!("{port}/TCP,{port}/UDP")), || text.clone())
    })
    .await
}

#[tokio::test]
async fn explain_shows_a_port_conflict_of_each_node_and_exits_with_3() -> Result<(), Failure> {
    test(async |namespace| {
        namespace.backend().await?;
        let [port] = namespace.ports().await?;
        let (older, younger) = (service("older").tcp(port), service("younger").tcp(port));
        namespace.apply(&older).await?;
        namespace.exposed(&older).await?;
        namespace.apply_after(&older, &younger).await?;
        namespace.warned(&younger, "PortConflict", &[&port.to_string()]).await?;
        let name = format!("{}/younger", namespace.name());
        let owner = format!("{}/older", namespace.name());
        let output = namespace.akrobateo(&["explain", &name]).await?;
        same("exit code", &output.code, &Some(3))?;
        for part in [format!("{name}: PortConflict"), format!("{port}/TCP belongs to {owner}")] {
            ensure(output.text.contains(&part), || format!("{part:?} is not in {output:?}"))?;
        }
        let output = namespace.akrobateo(&["ports", "-o", "json"]).await?;
        same("exit code of ports", &output.code, &Some(0))?;
        let rows = output.json()?;
        let row = rows.as_array().into_iter().flatten().find(|row| row["port"] == port);
        let row = row.ok_or_else(|| Failure::Unmet(format!("no port {port} in {rows}")))?;
        same("owner", &row["owner"], &owner.into())?;
        same("waiting Services", &row["waiting"], &vec![name].into())?;
        same("exit code of status", &run_status(namespace).await?.0.code, &Some(3))
    })
    .await
}

#[tokio::test]
async fn explain_shows_no_pending_actions_of_an_exposed_service() -> Result<(), Failure> {
    test(async |namespace| {
        namespace.backend().await?;
        let [port] = namespace.ports().await?;
        let web = service("web").tcp(port);
        namespace.apply(&web).await?;
        namespace.exposed(&web).await?;
        // The command and the operator make the same decision only if their configuration is the same.
        eventually("no action is pending", async || {
            let name = format!("{}/web", namespace.name());
            let output = namespace.akrobateo(&["explain", &name, "-o", "json"]).await?;
            same("pending", &output.json()?["pending"], &Value::Array(Vec::new()))
        })
        .await
    })
    .await
}

#[tokio::test]
async fn render_prints_the_workload_that_the_operator_creates() -> Result<(), Failure> {
    test(async |namespace| {
        let [port] = namespace.ports().await?;
        let web = service("web").tcp(port).annotation("akrobateo.io/node-selector", "!missing");
        let mut object = namespace.apply(&web).await?;
        let created = namespace.rolled_out(&web).await?;
        object.metadata.managed_fields = None;
        let folder = create_folder(namespace)?;
        let file = folder.join("service.json");
        let text = serde_json::to_string(&object).map_err(|error| Failure::Unmet(error.to_string()))?;
        std::fs::write(&file, text).map_err(|error| Failure::File(file.display().to_string(), error))?;
        let output = namespace.akrobateo(&["render", "-o", "json", "-f", &file.to_string_lossy()]).await?;
        same("exit code", &output.code, &Some(0))?;
        let rendered = output.json()?;
        let created = serde_json::to_value(&created).map_err(|error| Failure::Unmet(error.to_string()))?;
        for path in [
            "/metadata/name",
            "/metadata/namespace",
            "/metadata/labels",
            "/spec/selector",
            "/spec/template/spec/affinity",
            "/spec/template/spec/containers/0/args",
            "/spec/template/spec/containers/0/image",
            "/spec/template/spec/containers/0/securityContext",
        ] {
            same(path, &rendered.pointer(path), &created.pointer(path))?;
        }
        std::fs::remove_dir_all(&folder).map_err(|error| Failure::File(folder.display().to_string(), error))
    })
    .await
}

#[tokio::test]
async fn kubectl_plugin_requires_a_command_and_explain_names_a_missing_service() -> Result<(), Failure> {
    test(async |namespace| {
        let folder = create_folder(namespace)?;
        let output = namespace.plugin(&folder, &[]).await?;
        same("exit code without a command", &output.code, &Some(2))?;
        ensure(output.errors.contains("kubectl akrobateo"), || output.errors.clone())?;
        let output = namespace.akrobateo(&["explain", "missing/web"]).await?;
        same("exit code for a missing Service", &output.code, &Some(1))?;
        ensure(output.errors.contains("Service missing/web not found"), || output.errors.clone())?;
        std::fs::remove_dir_all(&folder).map_err(|error| Failure::File(folder.display().to_string(), error))
    })
    .await
}

/// Creates a temporary folder for the files of one test.
fn create_folder(namespace: &Namespace) -> Result<PathBuf, Failure> {
    let folder = std::env::temp_dir().join(namespace.name());
    std::fs::create_dir(&folder).map_err(|error| Failure::File(folder.display().to_string(), error))?;
    Ok(folder)
}

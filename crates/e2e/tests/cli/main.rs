//! The administrator's commands, on a cluster with an operator that is deployed.

use std::path::PathBuf;

use e2e::{CommandOutput, Failure, Namespace, ensure, ensure_eq, eventually, service, test};
use serde_json::Value;

/// The line of a Service, once `status` finds that it is as it should be.
async fn status(namespace: &Namespace) -> Result<(CommandOutput, Vec<Value>), Failure> {
    let said = namespace.akrobateo(&["status", "-n", namespace.name(), "-o", "json"]).await?;
    let rows = said.json()?.as_array().cloned().unwrap_or_default();
    Ok((said, rows))
}

#[tokio::test]
async fn status_shows_each_service_with_its_addresses_and_ends_with_0() -> Result<(), Failure> {
    test(async |namespace| {
        namespace.start_backend().await?;
        let [port] = namespace.allocate_ports().await?;
        let web = service("web").tcp(port).udp(port);
        namespace.apply(&web).await?;
        namespace.wait_exposed(&web).await?;
        let nodes = namespace.cluster().list_nodes().await?;
        let (said, rows) = status(namespace).await?;
        ensure_eq("exit code", &said.exit_code, &Some(0))?;
        ensure_eq("lines", &rows.len(), &1)?;
        ensure_eq("state", &rows[0]["reason"], &"Exposed".into())?;
        ensure_eq("ready", &rows[0]["ready"], &nodes.len().into())?;
        ensure_eq("wanted", &rows[0]["wanted"], &nodes.len().into())?;
        let mut told: Vec<_> = rows[0]["addresses"].as_array().into_iter().flatten().cloned().collect();
        let ingress = namespace.get_service(&web).await?.status.and_then(|status| status.load_balancer);
        let ingress = ingress.and_then(|status| status.ingress).unwrap_or_default();
        let mut published: Vec<Value> = ingress.into_iter().map(|entry| entry.ip.into()).collect();
        told.sort_by_key(Value::to_string);
        published.sort_by_key(Value::to_string);
        ensure_eq("addresses", &told, &published)?;
        let text = namespace.akrobateo(&["status", "-n", namespace.name()]).await?.stdout;
        ensure(!text.contains('\x1b'), || format!("colours without a terminal: {text}"))?;
        ensure(text.contains(&format!("{port}/TCP,{port}/UDP")), || text.clone())
    })
    .await
}

#[tokio::test]
async fn a_conflict_is_explained_node_by_node_and_ends_with_3() -> Result<(), Failure> {
    test(async |namespace| {
        namespace.start_backend().await?;
        let [port] = namespace.allocate_ports().await?;
        let (older, younger) = (service("older").tcp(port), service("younger").tcp(port));
        namespace.apply(&older).await?;
        namespace.wait_exposed(&older).await?;
        namespace.apply_younger(&older, &younger).await?;
        namespace.wait_warning(&younger, "PortConflict", &[&port.to_string()]).await?;
        let name = format!("{}/younger", namespace.name());
        let owner = format!("{}/older", namespace.name());
        let said = namespace.akrobateo(&["explain", &name]).await?;
        ensure_eq("exit code", &said.exit_code, &Some(3))?;
        for part in [format!("{name}: PortConflict"), format!("{port}/TCP belongs to {owner}")] {
            ensure(said.stdout.contains(&part), || format!("{part:?} is not in {said:?}"))?;
        }
        let ports = namespace.akrobateo(&["ports", "-o", "json"]).await?;
        ensure_eq("exit code of ports", &ports.exit_code, &Some(0))?;
        let rows = ports.json()?;
        let row = rows.as_array().into_iter().flatten().find(|row| row["port"] == port);
        let row = row.ok_or_else(|| Failure::Unexpected(format!("no port {port} in {rows}")))?;
        ensure_eq("owner", &row["owner"], &owner.into())?;
        ensure_eq("who waits", &row["waiting"], &vec![name].into())?;
        ensure_eq("exit code of status", &status(namespace).await?.0.exit_code, &Some(3))
    })
    .await
}

#[tokio::test]
async fn a_settled_service_has_nothing_pending() -> Result<(), Failure> {
    test(async |namespace| {
        namespace.start_backend().await?;
        let [port] = namespace.allocate_ports().await?;
        let web = service("web").tcp(port);
        namespace.apply(&web).await?;
        namespace.wait_exposed(&web).await?;
        // The command and the operator come to the same decision only if their settings are the same.
        eventually("nothing is pending", async || {
            let name = format!("{}/web", namespace.name());
            let said = namespace.akrobateo(&["explain", &name, "-o", "json"]).await?;
            ensure_eq("pending", &said.json()?["pending"], &Value::Array(Vec::new()))
        })
        .await
    })
    .await
}

#[tokio::test]
async fn what_is_rendered_is_what_the_operator_makes() -> Result<(), Failure> {
    test(async |namespace| {
        let [port] = namespace.allocate_ports().await?;
        let web = service("web").tcp(port).annotation("akrobateo.io/node-selector", "!nowhere");
        let mut object = namespace.apply(&web).await?;
        let made = namespace.wait_rolled_out(&web).await?;
        object.metadata.managed_fields = None;
        let folder = folder(namespace)?;
        let file = folder.join("service.json");
        let text = serde_json::to_string(&object).map_err(|error| Failure::Unexpected(error.to_string()))?;
        std::fs::write(&file, text).map_err(|error| Failure::File(file.display().to_string(), error))?;
        let said = namespace.akrobateo(&["render", "-o", "json", "-f", &file.to_string_lossy()]).await?;
        ensure_eq("exit code", &said.exit_code, &Some(0))?;
        let rendered = said.json()?;
        let made = serde_json::to_value(&made).map_err(|error| Failure::Unexpected(error.to_string()))?;
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
            ensure_eq(path, &rendered.pointer(path), &made.pointer(path))?;
        }
        std::fs::remove_dir_all(&folder).map_err(|error| Failure::File(folder.display().to_string(), error))
    })
    .await
}

#[tokio::test]
async fn as_kubectls_plugin_it_says_what_it_is_and_what_is_wrong() -> Result<(), Failure> {
    test(async |namespace| {
        let folder = folder(namespace)?;
        let said = namespace.plugin(&folder, &[]).await?;
        ensure_eq("exit code without a command", &said.exit_code, &Some(2))?;
        ensure(said.stderr.contains("kubectl akrobateo"), || said.stderr.clone())?;
        let said = namespace.akrobateo(&["explain", "nowhere/nothing"]).await?;
        ensure_eq("exit code for what is not there", &said.exit_code, &Some(1))?;
        ensure(said.stderr.contains("there is no Service nowhere/nothing"), || said.stderr.clone())?;
        std::fs::remove_dir_all(&folder).map_err(|error| Failure::File(folder.display().to_string(), error))
    })
    .await
}

/// A folder for files of one test.
fn folder(namespace: &Namespace) -> Result<PathBuf, Failure> {
    let folder = std::env::temp_dir().join(namespace.name());
    std::fs::create_dir(&folder).map_err(|error| Failure::File(folder.display().to_string(), error))?;
    Ok(folder)
}

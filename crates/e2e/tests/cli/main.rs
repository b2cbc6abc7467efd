//! Tests the commands for administrators on a cluster with a deployed operator. Does I/O.

use std::path::PathBuf;

use e2e::{
    CommandOutput, Failure, Namespace, ensure, ensure_eq, eventually, service, test, test_in_dedicated_mode,
};
use serde_json::Value;

/// Returns the output of `akrobateo status` for the namespace, and the rows of this output.
async fn run_status_command(namespace: &Namespace) -> Result<(CommandOutput, Vec<Value>), Failure> {
    let output = namespace.run_akrobateo(&["status", "-n", namespace.name(), "-o", "json"]).await?;
    let rows = output.json()?.as_array().cloned().unwrap_or_default();
    Ok((output, rows))
}

#[tokio::test]
async fn status_shows_the_published_addresses_and_exits_with_0() -> Result<(), Failure> {
    test(async |namespace| {
        namespace.start_backend().await?;
        let [port] = namespace.allocate_ports().await?;
        let web = service("web").tcp(port).udp(port);
        namespace.apply(&web).await?;
        namespace.wait_exposed(&web).await?;
        let nodes = namespace.cluster().list_nodes().await?;
        let (output, rows) = run_status_command(namespace).await?;
        ensure_eq("exit code", &output.exit_code, &Some(0))?;
        ensure_eq("rows", &rows.len(), &1)?;
        ensure_eq("state", &rows[0]["reason"], &"Exposed".into())?;
        ensure_eq("ready", &rows[0]["ready"], &nodes.len().into())?;
        ensure_eq("wanted", &rows[0]["wanted"], &nodes.len().into())?;
        let mut shown_addresses: Vec<_> =
            rows[0]["addresses"].as_array().into_iter().flatten().cloned().collect();
        let ingress = namespace.get_service(&web).await?.status.and_then(|status| status.load_balancer);
        let ingress = ingress.and_then(|status| status.ingress).unwrap_or_default();
        let mut published_addresses: Vec<Value> = ingress.into_iter().map(|entry| entry.ip.into()).collect();
        shown_addresses.sort_by_key(Value::to_string);
        published_addresses.sort_by_key(Value::to_string);
        ensure_eq("addresses", &shown_addresses, &published_addresses)?;
        let text = namespace.run_akrobateo(&["status", "-n", namespace.name()]).await?.stdout;
        ensure(!text.contains('\x1b'), || {
            format!("the output is not on a terminal, but has colors: {text}")
        })?;
        ensure(text.contains(&format!("{port}/TCP,{port}/UDP")), || text.clone())
    })
    .await
}

#[tokio::test]
async fn explain_shows_a_port_conflict_on_each_node_and_exits_with_3() -> Result<(), Failure> {
    test(async |namespace| {
        namespace.start_backend().await?;
        let [port] = namespace.allocate_ports().await?;
        let (older_service, younger_service) = (service("older").tcp(port), service("younger").tcp(port));
        namespace.apply(&older_service).await?;
        namespace.wait_exposed(&older_service).await?;
        namespace.apply_younger(&older_service, &younger_service).await?;
        namespace.wait_warning(&younger_service, "PortConflict", &[&port.to_string()]).await?;
        let name = format!("{}/younger", namespace.name());
        let owner = format!("{}/older", namespace.name());
        let output = namespace.run_akrobateo(&["explain", &name]).await?;
        ensure_eq("exit code", &output.exit_code, &Some(3))?;
        for part in
            [format!("{name}: PortConflict"), format!("{port}/TCP"), "belongs to".to_owned(), owner.clone()]
        {
            ensure(output.stdout.contains(&part), || format!("{part:?} is not in {output:?}"))?;
        }
        let output = namespace.run_akrobateo(&["ports", "-o", "json"]).await?;
        ensure_eq("exit code of ports", &output.exit_code, &Some(0))?;
        let rows = output.json()?;
        let row = rows.as_array().into_iter().flatten().find(|row| row["port"] == port);
        let row = row.ok_or_else(|| {
            Failure::UnexpectedState(format!("the output has no row for port {port}: {rows}"))
        })?;
        ensure_eq("owner", &row["owner"], &owner.into())?;
        ensure_eq("waiting Services", &row["waiting"], &vec![name].into())?;
        ensure_eq("exit code of status", &run_status_command(namespace).await?.0.exit_code, &Some(3))
    })
    .await
}

#[tokio::test]
async fn explain_shows_no_pending_actions_for_an_exposed_service() -> Result<(), Failure> {
    test(async |namespace| {
        namespace.start_backend().await?;
        let [port] = namespace.allocate_ports().await?;
        let web = service("web").tcp(port);
        namespace.apply(&web).await?;
        namespace.wait_exposed(&web).await?;
        // The command and the operator make the same decision only if their configuration is the same.
        eventually("no action is pending", async || {
            let name = format!("{}/web", namespace.name());
            let output = namespace.run_akrobateo(&["explain", &name, "-o", "json"]).await?;
            ensure_eq("pending", &output.json()?["pending"], &Value::Array(Vec::new()))
        })
        .await
    })
    .await
}

#[tokio::test]
async fn render_prints_the_workload_that_the_operator_creates() -> Result<(), Failure> {
    test_in_dedicated_mode(async |namespace| {
        let [port] = namespace.allocate_ports().await?;
        let web = service("web").tcp(port).annotation("akrobateo.io/node-selector", "!missing");
        let mut object = namespace.apply(&web).await?;
        let created_workload = namespace.wait_rolled_out(&web).await?;
        object.metadata.managed_fields = None;
        let folder = create_folder(namespace)?;
        let file = folder.join("service.json");
        let text =
            serde_json::to_string(&object).map_err(|error| Failure::UnexpectedState(error.to_string()))?;
        std::fs::write(&file, text).map_err(|error| Failure::File(file.display().to_string(), error))?;
        let output =
            namespace.run_akrobateo(&["render", "-o", "json", "-f", &file.to_string_lossy()]).await?;
        ensure_eq("exit code", &output.exit_code, &Some(0))?;
        let rendered_workload = output.json()?;
        let created_workload = serde_json::to_value(&created_workload)
            .map_err(|error| Failure::UnexpectedState(error.to_string()))?;
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
            ensure_eq(path, &rendered_workload.pointer(path), &created_workload.pointer(path))?;
        }
        std::fs::remove_dir_all(&folder).map_err(|error| Failure::File(folder.display().to_string(), error))
    })
    .await
}

#[tokio::test]
async fn missing_command_and_missing_service_are_reported_on_standard_error() -> Result<(), Failure> {
    test(async |namespace| {
        let folder = create_folder(namespace)?;
        let output = namespace.run_plugin(&folder, &[]).await?;
        ensure_eq("exit code without a command", &output.exit_code, &Some(2))?;
        ensure(output.stderr.contains("kubectl akrobateo"), || output.stderr.clone())?;
        let output = namespace.run_akrobateo(&["explain", "missing/web"]).await?;
        ensure_eq("exit code for a missing Service", &output.exit_code, &Some(1))?;
        ensure(output.stderr.contains("Service missing/web not found"), || output.stderr.clone())?;
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

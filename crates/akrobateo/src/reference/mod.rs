//! Holds docs/reference.md, the alerts and the dashboard to what the code has. `UPDATE_DOCS=1 cargo test -p akrobateo
//! reference` writes the tables anew.

mod sources;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::CommandFactory;

use crate::key::ServiceKey;
use crate::metrics::{CallLabels, CallResult, Metrics, ReconcileLabels, WatchLabels};
use crate::settings::OperatorConfig;
use sources::{annotations, proxy_metrics, reasons};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(file: &str) -> String {
    std::fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// The text between the marks of a section.
fn section<'a>(document: &'a str, name: &str) -> &'a str {
    let (begin, end) = (format!("<!-- begin: {name} -->\n"), format!("<!-- end: {name} -->"));
    let inner = document.split_once(&begin).and_then(|(_, rest)| rest.split_once(&end));
    inner.unwrap_or_else(|| panic!("docs/reference.md has no section {name}")).0
}

fn holds(name: &str, table: &str) {
    const FILE: &str = "docs/reference.md";
    let document = read(FILE);
    let is = section(&document, name);
    if std::env::var_os("UPDATE_DOCS").is_some() && is != table {
        let mark = format!("<!-- begin: {name} -->\n");
        let new = document.replace(&format!("{mark}{is}"), &format!("{mark}{table}"));
        std::fs::write(root().join(FILE), new).unwrap();
        return;
    }
    assert_eq!(is, table, "section {name} of {FILE} is not what the code says; UPDATE_DOCS=1 writes it anew");
}

/// A text within a table.
fn cell(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}

fn flags(command: &clap::Command) -> String {
    let mut table = "| flag | variable | default | |\n|---|---|---|---|\n".to_owned();
    for argument in command.get_arguments().filter(|argument| argument.get_long().is_some()) {
        let name = argument.get_long().unwrap_or_default();
        if ["help", "version"].contains(&name) {
            continue;
        }
        let variable = argument.get_env().map(|env| format!("`{}`", env.to_string_lossy()));
        let values: Vec<_> =
            argument.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
        let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
        // Where the default depends on the surroundings, the help tells it.
        let (help, told) = match help.split_once(" [default: ") {
            Some((help, told)) => (help.to_owned(), Some(told.trim_end_matches(']').to_owned())),
            None => (help, None),
        };
        let default = match values.join(",") {
            values if values.is_empty() => told.unwrap_or_else(|| "none".to_owned()),
            values => format!("`{values}`"),
        };
        let version = env!("CARGO_PKG_VERSION");
        let default = default.replace(&format!(":{version}`"), ":VERSION`");
        let (variable, default, help) = (variable.unwrap_or_default(), cell(&default), cell(&help));
        let _ = writeln!(table, "| `--{name}` | {variable} | {default} | {help} |");
    }
    table
}

#[test]
fn every_flag_of_the_operator_is_in_the_reference() {
    holds("flags", &flags(&OperatorConfig::command()));
}

#[test]
fn every_flag_of_the_data_plane_is_in_the_reference() {
    let mut table = "| flag | value | default | |\n|---|---|---|---|\n".to_owned();
    for option in akrobateo_core::proxy_args::options() {
        let default = option.default.map_or_else(|| "none".to_owned(), |default| format!("`{default}`"));
        let (value, help) = (cell(option.value), cell(option.help));
        let _ = writeln!(table, "| `--{}` | `{value}` | {default} | {help} |", option.name);
    }
    holds("proxy-flags", &table);
}

#[test]
fn every_annotation_is_in_the_reference() {
    let rows = annotations(&read("crates/core/src/annotations.rs"));
    assert!(rows.len() >= 10, "the annotations were not found: {rows:?}");
    let mut table = "| annotation | |\n|---|---|\n".to_owned();
    for (name, meaning) in &rows {
        let _ = writeln!(table, "| `{name}` | {} |", cell(meaning));
    }
    holds("annotations", &table);
}

/// Name, type and help of the operator's metrics, as they are scraped.
fn operator_metrics() -> Vec<[String; 3]> {
    let metrics = Metrics::new();
    // A family without values is not described.
    metrics.calls.get_or_create(&CallLabels { step: "", result: CallResult::Ok }).inc();
    metrics.reconciles.get_or_create(&ReconcileLabels { result: "" }).inc();
    metrics.watch_errors.get_or_create(&WatchLabels { kind: String::new() }).inc();
    metrics.set_service_state(&ServiceKey { namespace: String::new(), name: String::new() }, Some(""));
    let text = metrics.text().unwrap();
    let described = |kind: &str, name: &str| {
        let line = format!("# {kind} {name} ");
        text.lines().find_map(|text| text.strip_prefix(&line)).unwrap_or_default().to_owned()
    };
    let names = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    names
        .map(|(name, kind)| {
            let suffix = if kind == "counter" { "_total" } else { "" };
            [format!("{name}{suffix}"), kind.to_owned(), described("HELP", name)]
        })
        .collect()
}

#[test]
fn every_metric_is_in_the_reference() {
    let table = |rows: Vec<[String; 3]>| {
        let mut table = "| metric | type | |\n|---|---|---|\n".to_owned();
        for [name, kind, help] in rows {
            let _ = writeln!(table, "| `{name}` | {kind} | {} |", cell(help.trim_end_matches('.')));
        }
        table
    };
    let operator = operator_metrics();
    let registered = read("crates/akrobateo/src/metrics.rs").matches(".register").count();
    assert_eq!(operator.len(), registered, "metrics without values are not described: {operator:?}");
    holds("metrics", &table(operator));
    holds("proxy-metrics", &table(proxy_metrics(&root().join("crates/akrobateo-lb/src"))));
}

#[test]
fn every_reason_of_events_and_conditions_is_in_the_reference() {
    let document = read("docs/reference.md");
    let mut told = BTreeSet::new();
    for line in ["events", "states"].into_iter().flat_map(|name| section(&document, name).lines()) {
        told.extend(
            line.strip_prefix("| `").and_then(|line| line.split_once('`')).map(|(name, _)| name.to_owned()),
        );
    }
    assert_eq!(told, reasons(&root().join("crates/akrobateo/src")), "left: told, right: in the code");
    assert!(document.contains("`akrobateo.io/Exposed`"));
}

/// Not a label of pods, which Prometheus writes with underscores.
fn is_metric(word: &str) -> bool {
    word.starts_with("akrobateo_") && !word.starts_with("akrobateo_io_")
}

#[test]
fn alerts_and_dashboard_name_metrics_that_exist() {
    let mut known: BTreeSet<String> = BTreeSet::new();
    for [name, kind, _] in
        operator_metrics().into_iter().chain(proxy_metrics(&root().join("crates/akrobateo-lb/src")))
    {
        if kind == "histogram" {
            known.extend(["_bucket", "_sum", "_count"].map(|suffix| format!("{name}{suffix}")));
        } else {
            known.insert(name);
        }
    }
    for file in [
        "charts/akrobateo/files/alerts.yaml",
        "charts/akrobateo/files/dashboard.json",
        "charts/tests/alerts.yaml",
    ] {
        let text = read(file);
        let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        let named: BTreeSet<_> = words.filter(|word| is_metric(word)).map(str::to_owned).collect();
        assert!(!named.is_empty(), "{file} names no metric");
        let unknown: Vec<_> = named.difference(&known).collect();
        assert!(unknown.is_empty(), "{file} names metrics that do not exist: {unknown:?}");
    }
}

#[test]
fn the_chart_has_every_setting() {
    let chart = read("charts/akrobateo/templates/_env.tpl");
    for argument in OperatorConfig::command().get_arguments() {
        let Some(variable) = argument.get_env() else { continue };
        let variable = format!("\"{}\"", variable.to_string_lossy());
        assert!(chart.contains(&variable), "the chart cannot set {variable}");
    }
}

//! Tests that compare documents, manifests, the chart, the alerts and the dashboard with the code. The tests read these
//! files.
//!
//! `UPDATE_DOCS=1 cargo test -p akrobateo reference` writes the tables of docs/reference.md.

mod document;
mod network_policies;
mod operator_metrics;
mod troubleshooting;

use std::collections::BTreeSet;

use akrobateo_core::annotations::ANNOTATIONS;
use akrobateo_core::proxy_args;
use akrobateo_services::settings::ServiceSettings;
use clap::{Args, CommandFactory};

use crate::reason::Reason;
use crate::settings::OperatorConfig;
use document::{assert_section, read_file, read_section, table};
use operator_metrics::operator_metrics;

/// Returns the table row of a flag: name, environment variable, default and help.
fn flag_row(flag: &str, argument: &clap::Arg) -> Vec<String> {
    let variable = argument.get_env().map(|env| format!("`{}`", env.to_string_lossy()));
    let values: Vec<_> = argument.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
    let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
    // If the default is not a constant, the help text states it.
    let (help, stated_default) = match help.split_once(" [default: ") {
        Some((help, default)) => (help.to_owned(), Some(default.trim_end_matches(']').to_owned())),
        None => (help, None),
    };
    let default = match values.join(",") {
        values if values.is_empty() => stated_default.unwrap_or_else(|| "none".to_owned()),
        values => format!("`{values}`"),
    };
    let default = default.replace(concat!(":", env!("CARGO_PKG_VERSION"), "`"), ":VERSION`");
    vec![format!("`--{flag}`"), variable.unwrap_or_default(), default, help]
}

#[test]
fn reference_lists_every_operator_flag() {
    let command = OperatorConfig::command();
    let flags = command.get_arguments().filter_map(|argument| Some((argument.get_long()?, argument)));
    let flags = flags.filter(|(flag, _)| !["help", "version"].contains(flag));
    let rows = flags.map(|(flag, argument)| flag_row(flag, argument));
    assert_section("flags", &table(&["flag", "variable", "default", "meaning"], rows));
}

#[test]
fn reference_lists_every_proxy_flag() {
    let rows = proxy_args::options().into_iter().map(|option| {
        let default = option.default.map_or_else(|| "none".to_owned(), |default| format!("`{default}`"));
        let (flag, value) = (format!("`--{}`", option.name), format!("`{}`", option.value_form));
        vec![flag, value, default, option.help.to_owned()]
    });
    assert_section("proxy-flags", &table(&["flag", "value", "default", "meaning"], rows));
}

#[test]
fn reference_lists_every_annotation() {
    let rows = ANNOTATIONS.iter().map(|annotation| {
        vec![format!("`{}`", annotation.name), annotation.kind.to_owned(), annotation.help.to_owned()]
    });
    assert_section("annotations", &table(&["annotation", "set on", "meaning"], rows));
}

#[test]
fn reference_lists_every_condition_reason() {
    let reasons = Reason::ALL.into_iter().filter(|reason| reason.is_condition_reason());
    let rows = reasons.map(|reason| {
        let status = match reason {
            Reason::NoEndpoints => "True if the Service has addresses, otherwise False",
            reason if reason.is_rejection() => "True if the Service has addresses, otherwise False",
            reason if reason.is_exposed() => "True",
            _ => "False",
        };
        vec![format!("`{reason}`"), status.to_owned(), reason.help().to_owned()]
    });
    assert_section("states", &table(&["reason", "status", "meaning"], rows));
}

#[test]
fn reference_lists_every_event_reason() {
    let reasons = Reason::ALL.into_iter().filter(|reason| !reason.is_condition_reason());
    let rows = reasons.map(|reason| {
        let event_type = if reason.is_warning() { "Warning" } else { "Normal" };
        vec![format!("`{reason}`"), event_type.to_owned(), reason.help().to_owned()]
    });
    assert_section("events", &table(&["reason", "type", "meaning"], rows));
}

#[test]
fn reference_lists_every_operator_metric() {
    let rows = operator_metrics()
        .into_iter()
        .map(|metric| vec![format!("`{}`", metric.name), metric.kind, metric.help]);
    assert_section("metrics", &table(&["metric", "type", "meaning"], rows));
}

/// Returns the names of all time series. The names of the proxies' and the agents' series come from docs/reference.md.
/// Tests of akrobateo-lb and akrobateo-agent compare these tables with the code.
fn time_series_names() -> BTreeSet<String> {
    let operator_series = operator_metrics().into_iter().map(|metric| (metric.name, metric.kind));
    let tables = ["proxy-metrics", "agent-metrics"].map(read_section).concat();
    let other_rows = tables.lines().filter_map(|row| {
        let (name, row) = row.strip_prefix("| `")?.split_once("` | ")?;
        Some((name.to_owned(), row.split(' ').next()?.to_owned()))
    });
    let series = |(name, kind): (String, String)| match kind.as_str() {
        "histogram" => ["_bucket", "_sum", "_count"].map(|suffix| format!("{name}{suffix}")).to_vec(),
        _ => vec![name],
    };
    operator_series.chain(other_rows).flat_map(series).collect()
}

/// Returns true if the word is the name of an Akrobateo metric. Words with the prefix `akrobateo_io_` are the names of
/// pod labels in Prometheus.
fn is_metric_name(word: &str) -> bool {
    word.starts_with("akrobateo_") && !word.starts_with("akrobateo_io_")
}

#[test]
fn alerts_and_dashboard_use_existing_metrics() {
    let existing_metrics = time_series_names();
    for file in [
        "charts/akrobateo/files/alerts.yaml",
        "charts/akrobateo/files/dashboard.json",
        "charts/tests/alerts.yaml",
    ] {
        let text = read_file(file);
        let words = text.split(|character: char| !(character.is_ascii_alphanumeric() || character == '_'));
        let used_metrics: BTreeSet<_> =
            words.filter(|word| is_metric_name(word)).map(str::to_owned).collect();
        assert!(!used_metrics.is_empty(), "{file} contains no metric");
        let unknown_metrics: Vec<_> = used_metrics.difference(&existing_metrics).collect();
        assert!(unknown_metrics.is_empty(), "{file} uses metrics that do not exist: {unknown_metrics:?}");
    }
}

/// The chart and the pods must use the same name for the port, because otherwise Prometheus does not find the proxies.
#[test]
fn pod_monitor_selects_the_metrics_port_of_the_proxies() {
    let workloads: serde_json::Value =
        serde_json::from_str(include_str!("../decide/golden/workloads.json")).unwrap();
    let container = &workloads["forwarding"]["spec"]["template"]["spec"]["containers"][0];
    let mut ports = container["ports"].as_array().unwrap().iter();
    let name = ports.find(|port| port.get("hostPort").is_none()).unwrap()["name"].as_str().unwrap();
    let template = read_file("charts/akrobateo/templates/metrics.yaml");
    let (_, pod_monitor) = template.split_once("kind: PodMonitor").unwrap();
    assert!(pod_monitor.contains(&format!("    - port: {name}\n")), "{pod_monitor}");
}

#[test]
fn chart_sets_every_environment_variable() {
    let template = read_file("charts/akrobateo/templates/_env.tpl");
    for argument in OperatorConfig::command().get_arguments() {
        let Some(variable) = argument.get_env() else { continue };
        let variable = format!("\"{}\"", variable.to_string_lossy());
        assert!(template.contains(&variable), "the chart does not set {variable}");
    }
}

/// The operator and the node agents must read the same values, so that they make the same decisions.
#[test]
fn chart_shares_the_settings_of_services_with_the_node_agents() {
    let template = read_file("charts/akrobateo/templates/_env.tpl");
    let (shared, _) = template.split_once("{{- end -}}").unwrap();
    let settings = ServiceSettings::augment_args(clap::Command::new("settings"));
    let variables = settings.get_arguments().filter_map(|argument| argument.get_env());
    let mut variables: Vec<_> = variables.map(|variable| variable.to_string_lossy().into_owned()).collect();
    // The agents need these settings to recognize the objects of their operator.
    variables.extend(["INSTANCE", "LB_NAMESPACE"].map(str::to_owned));
    variables.sort();
    let mut shared_variables: Vec<_> =
        shared.split("(list \"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    shared_variables.sort_unstable();
    assert_eq!(shared_variables, variables);
}

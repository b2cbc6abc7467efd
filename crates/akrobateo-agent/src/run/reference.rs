//! Compares the table of the agents' metrics in docs/reference.md with the code. `UPDATE_DOCS=1` rewrites the table.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use akrobateo_core::Family;
use api_client::{CallLabels, CallResult, WatchLabels};

use super::metrics::Metrics;
use crate::agent::Modes;
use crate::probe::{ForwardingMode, PeerPath, TargetId};

const BEGIN_MARKER: &str = "<!-- begin: agent-metrics -->\n";
const END_MARKER: &str = "<!-- end: agent-metrics -->";

/// Returns the text of a scrape with all metrics.
fn scrape() -> String {
    let metrics = Metrics::new(None);
    // The encoder omits a metric with labels until the first value is recorded.
    metrics.api.calls.get_or_create(&CallLabels { step: "", result: CallResult::Ok }).inc();
    metrics.api.watch_errors.get_or_create(&WatchLabels { kind: String::new() }).inc();
    metrics.count_change(None, Duration::ZERO);
    let id = TargetId { peer: 2, family: Family::V4 };
    metrics.set_modes(&Modes::from([(id, ForwardingMode::Keep(PeerPath::Direct))]));
    metrics.text().unwrap()
}

/// Returns the table of all metrics.
fn expected_table() -> String {
    let text = scrape();
    let mut table = "| metric | type | meaning |\n|---|---|---|\n".to_owned();
    for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (name, kind) = line.split_once(' ').unwrap();
        let help_prefix = format!("# HELP {name} ");
        let help = text.lines().find_map(|line| line.strip_prefix(&help_prefix)).unwrap();
        let suffix = if kind == "counter" { "_total" } else { "" };
        writeln!(table, "| `{name}{suffix}` | {kind} | {help} |").unwrap();
    }
    table
}

#[test]
fn reference_lists_every_metric_of_the_agents() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference.md");
    let document = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = document.split_once(BEGIN_MARKER).unwrap();
    let (table, after) = rest.split_once(END_MARKER).unwrap();
    let expected = expected_table();
    if table != expected && std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(path, [before, BEGIN_MARKER, &expected, END_MARKER, after].concat()).unwrap();
        return;
    }
    assert_eq!(
        table, expected,
        "docs/reference.md does not list the metrics of the code; \
         run `UPDATE_DOCS=1 cargo test -p akrobateo-agent --lib reference`"
    );
}

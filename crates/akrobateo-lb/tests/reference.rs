//! Compares the table of the proxies' metrics in docs/reference.md with the code. `UPDATE_DOCS=1` rewrites the table.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use akrobateo_lb::{kernel, userspace};

const BEGIN_MARKER: &str = "<!-- begin: proxy-metrics -->\n";
const END_MARKER: &str = "<!-- end: proxy-metrics -->";

/// Returns the table of the metrics of both data paths, sorted by name.
fn expected_table() -> String {
    let metrics: BTreeMap<_, _> =
        kernel::METRICS.iter().chain(userspace::METRICS).map(|metric| (metric.name, metric)).collect();
    let mut table = "| metric | type | |\n|---|---|---|\n".to_owned();
    for metric in metrics.values() {
        let help = metric.help.trim_end_matches('.');
        writeln!(table, "| `{}` | {} | {help} |", metric.name, metric.kind.as_str()).unwrap();
    }
    table
}

#[test]
fn reference_lists_every_metric_of_the_proxies() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference.md");
    let document = std::fs::read_to_string(&path).unwrap();
    let (before, rest) =
        document.split_once(BEGIN_MARKER).unwrap_or_else(|| panic!("no line {BEGIN_MARKER:?} in {path:?}"));
    let (table, after) =
        rest.split_once(END_MARKER).unwrap_or_else(|| panic!("no line {END_MARKER:?} in {path:?}"));
    let expected = expected_table();
    if table != expected && std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(path, [before, BEGIN_MARKER, &expected, END_MARKER, after].concat()).unwrap();
        return;
    }
    assert_eq!(
        table, expected,
        "docs/reference.md does not list the metrics of the code; \
         run `UPDATE_DOCS=1 cargo test -p akrobateo-lb --test reference`"
    );
}

#[test]
fn metrics_follow_the_naming_rules_of_prometheus() {
    for metric in kernel::METRICS.iter().chain(userspace::METRICS) {
        assert!(metric.name.starts_with("akrobateo_lb_"), "{}", metric.name);
        assert_eq!(metric.kind.as_str() == "counter", metric.name.ends_with("_total"), "{}", metric.name);
        assert!(!metric.help.contains(['\\', '\n', '|']), "{}: {}", metric.name, metric.help);
    }
}

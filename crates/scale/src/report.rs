//! The results as a Markdown table and as JSON. Pure.

use std::fmt::Write;

use netns_testkit::machine::Machine;
use serde_json::{Value, json};

use crate::results::{Measurement, SizeResults};

/// The cell of a value that was not measured.
const NOT_MEASURED: &str = "-";

/// Returns a table with one row for each measure, and one column for each size.
pub(crate) fn to_markdown(machine: &Machine, seconds: u64, results: &[SizeResults]) -> String {
    // Writing to a string cannot fail.
    let mut text = format!("{machine}. The steady state took {seconds} s.\n\n| measure |");
    for result in results {
        let _ = write!(text, " {} |", result.size);
    }
    let _ = write!(text, " target |\n|---|{}---|\n", "---|".repeat(results.len()));
    for (name, unit, target) in rows(results) {
        let cells =
            results.iter().map(|result| result.get(&name).map_or(NOT_MEASURED.to_owned(), format_value));
        let _ = write!(text, "| {name}{unit} | {} |", cells.collect::<Vec<_>>().join(" | "));
        let _ = writeln!(text, " {} |", target.map_or(String::new(), |target| format!("≤ {target}")));
    }
    text
}

/// Returns the results as JSON.
pub(crate) fn to_json(machine: &Machine, seconds: u64, results: &[SizeResults]) -> Value {
    let measurement_to_json = |it: &Measurement| json!({ "measure": it.name, "value": it.value, "unit": it.unit.name(), "target": it.target });
    let result_to_json = |result: &SizeResults| {
        json!({
            "services": result.size.services,
            "nodes": result.size.nodes,
            "measurements": result.measurements.iter().map(measurement_to_json).collect::<Vec<_>>(),
        })
    };
    json!({
        "machine": {
            "kernel": machine.kernel,
            "processor": machine.processor_model,
            "processors": machine.processor_count,
            "memory_mib": machine.memory_mebibytes,
        },
        "steady_seconds": seconds,
        "sizes": results.iter().map(result_to_json).collect::<Vec<_>>(),
    })
}

/// Returns the name, the unit and the target of each measure, in the order of the first size that has the measure.
fn rows(results: &[SizeResults]) -> Vec<(String, String, Option<f64>)> {
    let mut rows: Vec<(String, String, Option<f64>)> = Vec::new();
    for measurement in results.iter().flat_map(|result| &result.measurements) {
        if rows.iter().all(|(name, ..)| *name != measurement.name) {
            let unit = measurement.unit.name();
            let unit = if unit.is_empty() { String::new() } else { format!(", {unit}") };
            rows.push((measurement.name.clone(), unit, measurement.target));
        }
    }
    rows
}

fn format_value(measurement: &Measurement) -> String {
    let number = measurement.value;
    let precision = if number.fract() == 0.0 || number.abs() >= 100.0 {
        0
    } else if number.abs() >= 10.0 {
        1
    } else {
        2
    };
    format!("{number:.precision$}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::Unit;
    use crate::size::Size;

    #[test]
    fn table_has_a_column_for_each_size() {
        let mut small = SizeResults::new(Size { services: 50, nodes: 10 });
        small.add_with_target("time", 1.234, Unit::Seconds, Some(5.0));
        let mut large = SizeResults::new(Size { services: 100, nodes: 10 });
        large.add_with_target("time", 12.34, Unit::Seconds, Some(5.0));
        large.add("writes", 3.0, Unit::Count);
        let results = [small, large];
        let text = to_markdown(&Machine::default(), 9, &results);
        let rows = "| measure | 50x10 | 100x10 | target |\n|---|---|---|---|\n\
            | time, s | 1.23 | 12.3 | ≤ 5 |\n| writes | - | 3 |  |\n";
        assert!(text.ends_with(rows), "{text}");
        let json = to_json(&Machine::default(), 9, &results);
        assert_eq!(json["sizes"][1]["measurements"][1]["value"], 3.0);
    }
}

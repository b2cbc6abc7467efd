//! The table of the times and the memory of the agent's table. Pure.

use super::table::{format_table_head, format_table_row, group_thousands};
use crate::node_table::{TableResult, TableStep};
use crate::quartiles::{Quartiles, to_f64};

/// The title.
pub(super) const TITLE: &str = "The agent's table, 1,000 Services of 10 endpoints in both families";

/// Returns the table of all steps, and of the memory.
pub(super) fn render(result: &TableResult) -> String {
    let rows = TableStep::ALL.into_iter().filter_map(|step| {
        let Quartiles { lower_quartile, median, upper_quartile } = result.quartiles(step)?;
        let [lower, median, upper] = [lower_quartile, median, upper_quartile]
            .map(|seconds| group_thousands(&format!("{:.2}", seconds * 1e3)));
        Some(format_table_row([step.title().to_owned(), format!("{median} ms ({lower} to {upper})")]))
    });
    let memory = [
        ("memory of the process", result.resident_memory_bytes),
        ("memory of the process, without mapped files", result.anonymous_memory_bytes),
    ];
    let memory = memory
        .map(|(title, bytes)| format_table_row([title.to_owned(), format!("{:.1} MB", to_f64(bytes) / 1e6)]));
    [format_table_head(&["", "median (quartiles)"])].into_iter().chain(rows).chain(memory).collect()
}

//! Tables of text in aligned columns. Pure.

use super::output::{Health, Style};

/// The maximum number of nodes in a cell or a line. The JSON and YAML output contains all nodes.
pub(super) const MAX_LISTED_NODES: usize = 5;

/// The space between two columns.
const COLUMN_GAP: &str = "   ";

/// A cell of a table. The health selects the color of the text.
#[derive(Clone, Debug)]
pub(super) struct Cell {
    text: String,
    health: Health,
}

impl Cell {
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self::with_health(text, Health::NotApplicable)
    }

    pub(super) fn with_health(text: impl Into<String>, health: Health) -> Self {
        Self { text: text.into(), health }
    }
}

/// Returns the lines of a table under its headings. Empty cells are shown as a hyphen, except in the last column.
pub(super) fn format_table(headings: &[&str], rows: &[Vec<Cell>], style: Style) -> String {
    let column_width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.text.chars().count());
        cells.chain(headings.get(column).map(|heading| heading.len())).max().unwrap_or_default()
    };
    let widths: Vec<_> = (0..headings.len()).map(column_width).collect();
    let headings: Vec<_> = headings.iter().map(|&heading| Cell::new(heading)).collect();
    std::iter::once(&headings).chain(rows).map(|row| format_line(row, &widths, style)).collect()
}

fn format_line(row: &[Cell], widths: &[usize], style: Style) -> String {
    let last_column = widths.len().saturating_sub(1);
    let cells: Vec<_> = row
        .iter()
        .zip(widths)
        .enumerate()
        .map(|(column, (cell, &width))| {
            let text = if cell.text.is_empty() && column != last_column { "-" } else { &cell.text };
            // The padding is added before the color, because the escape sequences of the color would count as text.
            let padded_text = if column == last_column { text.to_owned() } else { format!("{text:width$}") };
            style.color_by_health(&padded_text, cell.health)
        })
        .collect();
    format!("{}\n", cells.join(COLUMN_GAP).trim_end())
}

/// Joins the first items with commas and appends the number of the omitted items: `a,b,+3`.
pub(super) fn join_first_items(items: &[String], limit: usize) -> String {
    let first_items = items.iter().take(limit).cloned().collect::<Vec<_>>().join(",");
    match items.len().saturating_sub(limit) {
        0 => first_items,
        omitted_count => format!("{first_items},+{omitted_count}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_sequences_do_not_change_the_column_widths() {
        let rows = [
            vec![Cell::with_health("a", Health::Healthy), Cell::new("")],
            vec![Cell::new("long"), Cell::new("x")],
        ];
        assert_eq!(format_table(&["N", "WHY"], &rows, Style::Plain), "N      WHY\na\nlong   x\n");
        assert!(format_table(&["N", "WHY"], &rows, Style::Colored).contains("\x1b[32ma   \x1b[0m"));
    }

    #[test]
    fn join_first_items_appends_the_number_of_omitted_items() {
        let items = ["a", "b", "c", "d", "e"].map(str::to_owned);
        assert_eq!(join_first_items(&items, 3), "a,b,c,+2");
        assert_eq!(join_first_items(&items, 5), "a,b,c,d,e");
        assert_eq!(join_first_items(&[], 3), "");
    }
}

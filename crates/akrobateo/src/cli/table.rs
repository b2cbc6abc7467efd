//! Text in columns.

use super::output::Style;

/// Between columns.
const GAP: &str = "   ";

/// A cell: its text, and whether that is good or bad news.
#[derive(Clone, Debug)]
pub(super) struct Cell {
    text: String,
    good: Option<bool>,
}

impl Cell {
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), good: None }
    }

    pub(super) fn judged(text: impl Into<String>, good: bool) -> Self {
        Self { text: text.into(), good: Some(good) }
    }
}

/// Lines of equal columns under headings; an empty cell is shown as a hyphen, but not in the last column.
pub(super) fn table(headings: &[&str], rows: &[Vec<Cell>], paint: Style) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.text.chars().count());
        cells.chain(headings.get(column).map(|heading| heading.len())).max().unwrap_or_default()
    };
    let widths: Vec<_> = (0..headings.len()).map(width).collect();
    let headings: Vec<_> = headings.iter().map(|&heading| Cell::new(heading)).collect();
    std::iter::once(&headings).chain(rows).map(|row| line(row, &widths, paint)).collect()
}

fn line(row: &[Cell], widths: &[usize], paint: Style) -> String {
    let last = widths.len().saturating_sub(1);
    let cells: Vec<_> = row
        .iter()
        .zip(widths)
        .enumerate()
        .map(|(column, (cell, &width))| {
            let text = if cell.text.is_empty() && column != last { "-" } else { &cell.text };
            // Padded first: what colours is not seen and must not be counted.
            let padded = if column == last { text.to_owned() } else { format!("{text:width$}") };
            match cell.good {
                Some(true) => paint.good(&padded),
                Some(false) => paint.bad(&padded),
                None => padded,
            }
        })
        .collect();
    format!("{}\n", cells.join(GAP).trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_and_colours_do_not_count() {
        let rows = [vec![Cell::judged("a", true), Cell::new("")], vec![Cell::new("long"), Cell::new("x")]];
        assert_eq!(table(&["N", "WHY"], &rows, Style(false)), "N      WHY\na\nlong   x\n");
        assert!(table(&["N", "WHY"], &rows, Style(true)).contains("\x1b[32ma   \x1b[0m"));
    }
}

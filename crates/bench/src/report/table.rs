//! Rows and cells of Markdown tables. Pure.

/// The cell of a value that was not measured.
pub(super) const NOT_MEASURED_CELL: &str = "-";

/// Returns a row.
pub(super) fn format_table_row(cells: impl IntoIterator<Item = String>) -> String {
    format!("| {} |\n", cells.into_iter().collect::<Vec<_>>().join(" | "))
}

/// Returns the first row of a table, and the line below it.
pub(super) fn format_table_head(columns: &[&str]) -> String {
    let titles = format_table_row(columns.iter().map(|&column| column.to_owned()));
    format!("{titles}|{}\n", "---|".repeat(columns.len()))
}

/// Separates the thousands of a number by commas, for example 1,000.
pub(super) fn group_thousands(number: &str) -> String {
    let (integer, fraction) = number.split_at(number.find('.').unwrap_or(number.len()));
    let mut text = String::new();
    for (index, digit) in integer.chars().enumerate() {
        if index > 0 && (integer.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text + fraction
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_separated_by_commas() {
        for (number, expected) in
            [("1", "1"), ("999", "999"), ("1000", "1,000"), ("1234567.5", "1,234,567.5")]
        {
            assert_eq!(group_thousands(number), expected);
        }
    }
}

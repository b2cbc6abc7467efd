//! The sections of docs/reference.md that the code determines. Reads and writes the document.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// The path of the document in the repository.
const REFERENCE_PATH: &str = "docs/reference.md";

/// The lock that a test holds while it uses the document. Tests run in parallel, and several tests may write the
/// document.
static DOCUMENT_LOCK: Mutex<()> = Mutex::new(());

fn repository_path(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(file)
}

/// Reads a file of the repository.
pub(super) fn read_file(file: &str) -> String {
    std::fs::read_to_string(repository_path(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// Reads a section of the document.
pub(super) fn read_section(name: &str) -> String {
    let _document_guard = DOCUMENT_LOCK.lock().unwrap_or_else(PoisonError::into_inner);
    section(&read_file(REFERENCE_PATH), name).to_owned()
}

/// Returns the text between the markers of a section.
fn section<'a>(document: &'a str, name: &str) -> &'a str {
    let (begin, end) = (format!("<!-- begin: {name} -->\n"), format!("<!-- end: {name} -->"));
    let content = document.split_once(&begin).and_then(|(_, rest)| rest.split_once(&end));
    content.unwrap_or_else(|| panic!("{REFERENCE_PATH} has no section {name}")).0
}

/// Compares a section with the text from the code. If the environment variable `UPDATE_DOCS` is set, writes the
/// section.
pub(super) fn assert_section(name: &str, expected: &str) {
    let _document_guard = DOCUMENT_LOCK.lock().unwrap_or_else(PoisonError::into_inner);
    let document = read_file(REFERENCE_PATH);
    let actual_text = section(&document, name);
    if std::env::var_os("UPDATE_DOCS").is_some() && actual_text != expected {
        let begin_marker = format!("<!-- begin: {name} -->\n");
        let updated_document =
            document.replace(&format!("{begin_marker}{actual_text}"), &format!("{begin_marker}{expected}"));
        std::fs::write(repository_path(REFERENCE_PATH), updated_document).unwrap();
        return;
    }
    assert_eq!(
        actual_text, expected,
        "section {name} of {REFERENCE_PATH} differs from the code; UPDATE_DOCS=1 updates it"
    );
}

/// Returns a Markdown table.
pub(super) fn table(headings: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let heading_cells: Vec<_> = headings.iter().map(|&heading| heading.to_owned()).collect();
    let separator = format!("|{}\n", "---|".repeat(headings.len()));
    let mut lines = vec![table_row(&heading_cells), separator];
    lines.extend(rows.into_iter().map(|row| table_row(&row)));
    lines.concat()
}

fn table_row(cells: &[String]) -> String {
    let cells: Vec<_> = cells.iter().map(|text| escape_cell(text)).collect();
    format!("| {} |\n", cells.join(" | "))
}

/// Joins the lines of a text and escapes its vertical bars.
fn escape_cell(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}

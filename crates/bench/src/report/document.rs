//! Replaces the results in a document, between two markers. Pure.

/// The line before the results.
pub(crate) const RESULTS_BEGIN_MARKER: &str = "<!-- results: begin -->\n";
/// The line after the results.
pub(crate) const RESULTS_END_MARKER: &str = "<!-- results: end -->\n";

/// Replaces the text between the markers with `results`. Returns `None` if the document has no markers.
pub(crate) fn replace_results(document: &str, results: &str) -> Option<String> {
    let (before, rest) = document.split_once(RESULTS_BEGIN_MARKER)?;
    let (_, after) = rest.split_once(RESULTS_END_MARKER)?;
    Some(format!("{before}{RESULTS_BEGIN_MARKER}{results}{RESULTS_END_MARKER}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_between_the_markers_is_replaced() {
        let document = format!("# Title\n{RESULTS_BEGIN_MARKER}old\n{RESULTS_END_MARKER}rest\n");
        let expected = format!("# Title\n{RESULTS_BEGIN_MARKER}new\n{RESULTS_END_MARKER}rest\n");
        assert_eq!(replace_results(&document, "new\n").as_deref(), Some(&*expected));
        assert_eq!(replace_results("# Title\n", "new\n"), None);
    }
}

//! Replaces the results in a document, between two markers. Pure.

/// The line before the results.
pub(crate) const BEGIN: &str = "<!-- results: begin -->\n";
/// The line after the results.
pub(crate) const END: &str = "<!-- results: end -->\n";

/// Replaces the text between the markers with `results`. Returns `None` if the document has no markers.
pub(crate) fn replace_results(document: &str, results: &str) -> Option<String> {
    let (before, rest) = document.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}{results}{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_between_the_markers_is_replaced() {
        let document = format!("# Title\n{BEGIN}old\n{END}rest\n");
        let expected = format!("# Title\n{BEGIN}new\n{END}rest\n");
        assert_eq!(replace_results(&document, "new\n").as_deref(), Some(&*expected));
        assert_eq!(replace_results("# Title\n", "new\n"), None);
    }
}

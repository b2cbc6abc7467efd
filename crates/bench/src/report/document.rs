//! Puts results into a document, between two marks. Pure.

const BEGIN: &str = "<!-- results: begin -->\n";
const END: &str = "<!-- results: end -->\n";

/// The document with `results` in place of what was between the marks; `None` if it has no marks.
pub(crate) fn renewed(document: &str, results: &str) -> Option<String> {
    let (before, rest) = document.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}{results}{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_between_the_marks_is_replaced() {
        let document = format!("# Title\n{BEGIN}old\n{END}rest\n");
        let wanted = format!("# Title\n{BEGIN}new\n{END}rest\n");
        assert_eq!(renewed(&document, "new\n").as_deref(), Some(&*wanted));
        assert_eq!(renewed("# Title\n", "new\n"), None);
    }
}

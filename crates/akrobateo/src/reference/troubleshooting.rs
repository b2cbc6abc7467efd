//! Tests that docs/troubleshooting.md explains each reason. The tests read this file.

use super::document::read_file;
use crate::reason::Reason;

/// Returns true if a heading or the first cell of a table row contains the reason.
fn explains(document: &str, reason: Reason) -> bool {
    let words = |text: &str| {
        let words = text.split(|character: char| !character.is_ascii_alphanumeric());
        words.map(str::to_owned).collect::<Vec<_>>()
    };
    document.lines().any(|line| {
        let subject = match line.strip_prefix("| ") {
            Some(row) => row.split(" | ").next().unwrap_or_default(),
            None if line.starts_with("## ") => line,
            None => return false,
        };
        words(subject).iter().any(|word| word == reason.as_str())
    })
}

#[test]
fn troubleshooting_explains_every_reason() {
    let document = read_file("docs/troubleshooting.md");
    let unexplained_reasons: Vec<_> =
        Reason::ALL.into_iter().filter(|reason| !explains(&document, *reason)).collect();
    assert!(
        unexplained_reasons.is_empty(),
        "docs/troubleshooting.md has no row or heading for {unexplained_reasons:?}"
    );
}

#[test]
fn mention_of_a_reason_in_a_sentence_is_not_an_explanation() {
    assert!(explains("| NoNodes, NoEndpoints | add a node |", Reason::NoEndpoints));
    assert!(explains("## Some nodes are not published (PartlyExposed)", Reason::PartlyExposed));
    assert!(!explains("| NoNodes | unlike NoEndpoints |", Reason::NoEndpoints));
    assert!(!explains("The reason may also be NoNodes.", Reason::NoNodes));
    assert!(!explains("| PartlyExposed | wait |", Reason::Exposed));
}

//! The text of an error together with its causes. Pure.

use std::error::Error;

/// Returns the messages of an error and of all its sources in one line, separated by colons.
pub fn error_chain(error: &dyn Error) -> String {
    let mut messages = vec![error.to_string()];
    let mut source = error.source();
    while let Some(error) = source {
        let message = error.to_string();
        // A transparent error repeats the message of the error that it wraps.
        if messages.last() != Some(&message) {
            messages.push(message);
        }
        source = error.source();
    }
    messages.join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    enum Failure {
        #[error("cannot read the file")]
        Read(#[source] std::io::Error),
        #[error("{0}")]
        Transparent(#[source] Box<Failure>),
    }

    #[test]
    fn error_chain_lists_each_message_once() {
        let failure = Failure::Read(std::io::Error::other("disk full"));
        let failure = Failure::Transparent(Box::new(failure));
        assert_eq!(error_chain(&failure), "cannot read the file: disk full");
    }
}

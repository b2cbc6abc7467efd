//! The reasons why a configuration is invalid. Pure.

/// The reason why a configuration is invalid.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The text is no JSON, or has another structure.
    #[error("the configuration is no valid JSON of a node's configuration: {0}")]
    Syntax(#[from] serde_json::Error),
    /// A value is invalid.
    #[error("{field} is {value:?}; expected {expected}")]
    Value {
        /// The place of the value.
        field: String,
        /// The value.
        value: String,
        /// The allowed values.
        expected: &'static str,
    },
    /// Two entries contradict each other.
    #[error("{first} and {second} have the same {what}; give each of them its own")]
    Duplicate {
        /// The first entry.
        first: String,
        /// The second entry.
        second: String,
        /// The common property.
        what: String,
    },
}

//! The reasons why a configuration is invalid. Pure.

/// The reason why a configuration is invalid.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The text is not a node's configuration in JSON.
    #[error("the text is not the JSON form of a node's configuration: {0}")]
    Syntax(#[from] serde_json::Error),
    /// A value is invalid.
    #[error("{field} is {value:?}; expected {expected}")]
    Value {
        /// The path of the field, for example `node.uplink`.
        field: String,
        /// The value.
        value: String,
        /// The allowed values.
        expected: &'static str,
    },
    /// Two entries contradict each other.
    #[error("{first} and {second} have the same {property}; give each of them a different value")]
    Duplicate {
        /// The first entry.
        first: String,
        /// The second entry.
        second: String,
        /// The property that both entries have.
        property: String,
    },
}

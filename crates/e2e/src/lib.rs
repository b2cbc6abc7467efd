//! Tests of Akrobateo against a real cluster: the harness, and what the `echo` program shares with it.

mod answer;
mod reply;
mod target;

pub use answer::{Answer, ParseAnswerError};
pub use reply::{ParseReplyError, Reply};
pub use target::{ParseTargetError, Target};

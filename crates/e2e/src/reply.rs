//! What came of asking, and its form as a line of `echo batch`. Pure.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use crate::{Answer, Target};

const NO_ANSWER: &str = "no answer: ";

/// What came of asking one target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Who was asked.
    pub target: Target,
    /// The client's own address towards the target, where there is a route.
    pub from: Option<IpAddr>,
    /// The answer, or why there is none.
    pub outcome: Result<Answer, String>,
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let from = self.from.map_or_else(|| "-".to_owned(), |from| from.to_string());
        write!(f, "{} from {from} ", self.target)?;
        match &self.outcome {
            Ok(answer) => write!(f, "{answer}"),
            Err(reason) => write!(f, "{NO_ANSWER}{reason}"),
        }
    }
}

/// A line that `echo batch` does not print.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no line of the echo client")]
pub struct ParseReplyError(String);

impl FromStr for Reply {
    type Err = ParseReplyError;

    fn from_str(line: &str) -> Result<Self, Self::Err> {
        parse(line).ok_or_else(|| ParseReplyError(line.to_owned()))
    }
}

fn parse(line: &str) -> Option<Reply> {
    let (target, rest) = line.split_once(" from ")?;
    let (from, outcome) = rest.split_once(' ')?;
    Some(Reply {
        target: target.parse().ok()?,
        from: from.parse().ok(),
        outcome: match outcome.strip_prefix(NO_ANSWER) {
            Some(reason) => Err(reason.to_owned()),
            None => Ok(outcome.parse().ok()?),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_is_read_as_it_was_written() {
        let target = "tcp/fd29::11/80".parse().unwrap();
        let answer =
            "host=backend node=node1 protocol=tcp port=8080 client=[fd29::100]:4242".parse().unwrap();
        for reply in [
            Reply { target, from: Some("fd29::100".parse().unwrap()), outcome: Ok(answer) },
            Reply { target, from: None, outcome: Err("no route: unreachable (os error 101)".to_owned()) },
        ] {
            assert_eq!(reply.to_string().parse(), Ok(reply));
        }
    }
}

//! The result of a request to one target, and its format as a line of `echo batch`. Pure.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use crate::answer::Answer;
use crate::failure::Failure;
use crate::target::Target;

const NO_ANSWER_PREFIX: &str = "no answer: ";

/// The result of a request to one target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The target of the request.
    pub target: Target,
    /// The source address of the client's packets to the target; `None` if there is no route.
    pub client_address: Option<IpAddr>,
    /// The answer, or the reason why the target did not answer.
    pub result: Result<Answer, String>,
}

impl Reply {
    /// Returns the answer, or a failure with the reason why the target did not answer.
    pub fn answer(&self) -> Result<&Answer, Failure> {
        self.result.as_ref().map_err(|_| Failure::UnexpectedState(self.to_string()))
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let client = self.client_address.map_or_else(|| "-".to_owned(), |address| address.to_string());
        write!(f, "{} from {client} ", self.target)?;
        match &self.result {
            Ok(answer) => write!(f, "{answer}"),
            Err(reason) => write!(f, "{NO_ANSWER_PREFIX}{reason}"),
        }
    }
}

/// The error for a line that is not a [`Reply`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a line of `echo batch`; expected PROTOCOL/ADDRESS/PORT from ADDRESS ANSWER")]
pub struct ParseReplyError(String);

impl FromStr for Reply {
    type Err = ParseReplyError;

    fn from_str(line: &str) -> Result<Self, Self::Err> {
        parse(line).ok_or_else(|| ParseReplyError(line.to_owned()))
    }
}

fn parse(line: &str) -> Option<Reply> {
    let (target, client_and_result) = line.split_once(" from ")?;
    let (client, result) = client_and_result.split_once(' ')?;
    Some(Reply {
        target: target.parse().ok()?,
        client_address: client.parse().ok(),
        result: match result.strip_prefix(NO_ANSWER_PREFIX) {
            Some(reason) => Err(reason.to_owned()),
            None => Ok(result.parse().ok()?),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parsing_a_displayed_reply_returns_the_same_reply() {
        let target = "tcp/fd29::11/80".parse().unwrap();
        let answer =
            "host=backend node=node1 protocol=tcp port=8080 client=[fd29::100]:4242".parse().unwrap();
        for reply in [
            Reply { target, client_address: Some("fd29::100".parse().unwrap()), result: Ok(answer) },
            Reply {
                target,
                client_address: None,
                result: Err("no route: unreachable (os error 101)".to_owned()),
            },
        ] {
            assert_eq!(reply.to_string().parse(), Ok(reply));
        }
    }
}

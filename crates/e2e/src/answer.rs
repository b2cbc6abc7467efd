//! The echo server's answer to a request, and its format on the wire: one line. Pure.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use akrobateo_core::Protocol;

/// The server that answered, and the client's address that the server saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The host name of the server; in a pod, the name of the pod.
    pub host: String,
    /// The node that the server runs on; `-` if the variable `NODE_NAME` is not set.
    pub node: String,
    /// The protocol of the request.
    pub protocol: Protocol,
    /// The server's port.
    pub port: u16,
    /// The source address and port of the request, as the server saw them.
    pub client_address: SocketAddr,
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, node, protocol, port, client_address } = self;
        write!(f, "host={host} node={node} protocol={protocol} port={port} client={client_address}")
    }
}

/// The error for a line that is not an [`Answer`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an answer of the echo server; expected host=… node=… protocol=… port=… client=…")]
pub struct ParseAnswerError(String);

impl FromStr for Answer {
    type Err = ParseAnswerError;

    fn from_str(line: &str) -> Result<Self, Self::Err> {
        parse(line).ok_or_else(|| ParseAnswerError(line.to_owned()))
    }
}

fn parse(line: &str) -> Option<Answer> {
    let mut words = line.split_whitespace();
    let mut next_value = |key: &str| words.next()?.strip_prefix(key)?.strip_prefix('=').map(str::to_owned);
    Some(Answer {
        host: next_value("host")?,
        node: next_value("node")?,
        protocol: next_value("protocol")?.parse().ok()?,
        port: next_value("port")?.parse().ok()?,
        client_address: next_value("client")?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parsing_a_displayed_answer_returns_the_same_answer() {
        for client in ["172.29.0.100:4242", "[fd29::100]:4242"] {
            let answer = Answer {
                host: "backend".to_owned(),
                node: "-".to_owned(),
                protocol: Protocol::Udp,
                port: 8080,
                client_address: client.parse().unwrap(),
            };
            assert_eq!(answer.to_string().parse(), Ok(answer));
        }
    }

    #[test]
    fn parser_rejects_a_line_that_is_not_an_answer() {
        assert!("HTTP/1.1 400 Bad Request".parse::<Answer>().is_err());
    }
}

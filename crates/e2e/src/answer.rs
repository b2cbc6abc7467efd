//! What the echo server says about a request, and its form on the wire: one line. Pure.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use akrobateo_core::Protocol;

/// Who answered, and whom it saw asking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Host name of the server, in a pod the pod's name.
    pub host: String,
    /// The node that the server runs on, `-` when it was not told.
    pub node: String,
    /// The protocol of the request.
    pub protocol: Protocol,
    /// The port on which the server got it.
    pub port: u16,
    /// The client as the server saw it.
    pub client: SocketAddr,
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, node, protocol, port, client } = self;
        write!(f, "host={host} node={node} protocol={protocol} port={port} client={client}")
    }
}

/// A line that no echo server writes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no answer of the echo server")]
pub struct ParseAnswerError(String);

impl FromStr for Answer {
    type Err = ParseAnswerError;

    fn from_str(line: &str) -> Result<Self, Self::Err> {
        parse(line).ok_or_else(|| ParseAnswerError(line.to_owned()))
    }
}

fn parse(line: &str) -> Option<Answer> {
    let mut words = line.split_whitespace();
    let mut value = |key: &str| words.next()?.strip_prefix(key)?.strip_prefix('=').map(str::to_owned);
    Some(Answer {
        host: value("host")?,
        node: value("node")?,
        protocol: value("protocol")?.parse().ok()?,
        port: value("port")?.parse().ok()?,
        client: value("client")?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_as_it_was_written() {
        for client in ["172.29.0.100:4242", "[fd29::100]:4242"] {
            let answer = Answer {
                host: "backend".to_owned(),
                node: "-".to_owned(),
                protocol: Protocol::Udp,
                port: 8080,
                client: client.parse().unwrap(),
            };
            assert_eq!(answer.to_string().parse(), Ok(answer));
        }
    }

    #[test]
    fn another_servers_line_is_no_answer() {
        assert!("HTTP/1.1 400 Bad Request".parse::<Answer>().is_err());
    }
}

//! The client outside the cluster. Does I/O.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, Stdio};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::environment::Environment;
use crate::{Answer, Failure, ParseAnswerError, Reply, Target, command};

/// Longer than the second after which a lost SYN is sent again.
const ANSWER_WITHIN: &str = "1.5";
const LINE_WITHIN: Duration = Duration::from_secs(15);
/// Thousands of connections are opened one after another.
const OPEN_WITHIN: Duration = Duration::from_mins(1);

/// Asks all targets at once, each once.
pub(crate) async fn ask(environment: &Environment, targets: &[Target]) -> Result<Vec<Reply>, Failure> {
    let targets = targets.iter().map(ToString::to_string);
    let words = words(environment, ["batch", ANSWER_WITHIN].map(str::to_owned).into_iter().chain(targets));
    let output = command::output(words.clone()).await?;
    let printed = String::from_utf8_lossy(&output.stdout);
    let replies: Result<Vec<Reply>, _> = printed.lines().map(str::parse).collect();
    let failed = |reason| Failure::Command(words.join(" "), reason);
    let replies = replies.map_err(|error| failed(error.to_string()))?;
    // Without a line for each target the client itself has failed, not a server.
    if replies.is_empty() {
        return Err(failed(String::from_utf8_lossy(&output.stderr).into_owned()));
    }
    Ok(replies)
}

/// Sends datagrams of this length and of one flow until one is answered by as many bytes.
pub(crate) async fn insist(
    environment: &Environment,
    server: SocketAddr,
    length: usize,
    within: Duration,
) -> Result<Answer, Failure> {
    let (ip, port) = (server.ip().to_string(), server.port().to_string());
    let args = ["insist".to_owned(), ip, port, within.as_secs().to_string(), length.to_string()];
    let answer = command::run(words(environment, args.into_iter())).await?;
    answer.trim().parse().map_err(|error: ParseAnswerError| Failure::Unmet(error.to_string()))
}

/// Begins as many flows of datagrams as the client can.
pub(crate) async fn flood(environment: &Environment, server: SocketAddr) -> Result<(), Failure> {
    let args = ["flood".to_owned(), server.ip().to_string(), server.port().to_string()];
    command::run(words(environment, args.into_iter())).await.map(drop)
}

fn words(environment: &Environment, args: impl Iterator<Item = String>) -> Vec<String> {
    environment.client.iter().cloned().chain([environment.echo.clone()]).chain(args).collect()
}

/// TCP connections to one server that are held open.
pub struct Session {
    child: Child,
    input: ChildStdin,
    lines: mpsc::UnboundedReceiver<String>,
}

impl Session {
    /// Connects so many times, and waits for the server's answers.
    pub(crate) async fn open(
        environment: &Environment,
        server: SocketAddr,
        connections: usize,
    ) -> Result<Self, Failure> {
        let (ip, port) = (server.ip().to_string(), server.port().to_string());
        let args = ["session".to_owned(), ip, port, connections.to_string()];
        let words = words(environment, args.into_iter());
        let failed = |reason: &str| Failure::Command(words.join(" "), reason.to_owned());
        let mut command = command::command(&words);
        let spawned = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = spawned.map_err(|error| failed(&error.to_string()))?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(failed("has no pipes"));
        };
        let (sender, lines) = mpsc::unbounded_channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                // Nobody listens any more when the test is over.
                drop(sender.send(line));
            }
        });
        let mut session = Self { child, input, lines };
        session.next_line(OPEN_WITHIN).await?;
        Ok(session)
    }

    /// Sends a line over each connection, and waits for it to come back over all of them.
    pub async fn says(&mut self, line: &str) -> Result<(), Failure> {
        let sent = writeln!(self.input, "{line}").and_then(|()| self.input.flush());
        sent.map_err(|error| Failure::Unmet(format!("the connections' client is gone: {error}")))?;
        let returned = self.next_line(LINE_WITHIN).await?;
        crate::same("what came back over the connections", &returned.as_str(), &line)
    }

    async fn next_line(&mut self, within: Duration) -> Result<String, Failure> {
        let line = timeout(within, self.lines.recv()).await;
        let silent = |_| Failure::Unmet(format!("nothing came over the connections within {within:?}"));
        line.map_err(silent)?.ok_or_else(|| self.last_words())
    }

    /// Why the client has ended.
    fn last_words(&mut self) -> Failure {
        let mut reason = String::new();
        let read = self.child.stderr.take().map(|mut stderr| stderr.read_to_string(&mut reason));
        let reason = read.transpose().map_or_else(|error| error.to_string(), |_| reason);
        Failure::Unmet(format!("the connections' client has ended: {}", reason.trim()))
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

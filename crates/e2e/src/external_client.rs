//! The client outside the cluster. The client runs the subcommands of the `echo` program. Does I/O.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, Stdio};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::answer::{Answer, ParseAnswerError};
use crate::command;
use crate::environment::Environment;
use crate::failure::{Failure, ensure_eq};
use crate::reply::Reply;
use crate::target::Target;

/// The usual time limit for an answer. TCP sends a lost SYN again after one second, so the client waits longer than one
/// second.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_millis(1500);
const RETURNED_LINE_TIMEOUT: Duration = Duration::from_secs(15);
/// The time limit is a minute, because the client opens thousands of connections one after another.
const OPEN_CONNECTIONS_TIMEOUT: Duration = Duration::from_mins(1);

/// Sends one request to each target. Sends all requests at the same time. Waits for an answer until `timeout`.
pub(crate) async fn send_requests(
    environment: &Environment,
    targets: &[Target],
    timeout: Duration,
) -> Result<Vec<Reply>, Failure> {
    let options = ["batch".to_owned(), timeout.as_secs_f32().to_string()];
    let words =
        client_command(environment, options.into_iter().chain(targets.iter().map(ToString::to_string)));
    let output = command::run_and_get_output(words.clone()).await?;
    let stdout = String::from_utf8_lossy(&output.stdout);
    let replies: Result<Vec<Reply>, _> = stdout.lines().map(str::parse).collect();
    let to_failure = |reason| Failure::Command(words.join(" "), reason);
    let replies = replies.map_err(|error| to_failure(error.to_string()))?;
    // The client prints a line for each target. If the lines are missing, the client itself has failed.
    if replies.is_empty() {
        return Err(to_failure(String::from_utf8_lossy(&output.stderr).into_owned()));
    }
    Ok(replies)
}

/// Sends UDP datagrams of `datagram_length` bytes from one socket until the server answers one of them.
pub(crate) async fn send_until_answered(
    environment: &Environment,
    server: SocketAddr,
    datagram_length: usize,
    timeout: Duration,
) -> Result<Answer, Failure> {
    let (ip, port) = (server.ip().to_string(), server.port().to_string());
    let args = [
        "send-until-answered".to_owned(),
        ip,
        port,
        timeout.as_secs().to_string(),
        datagram_length.to_string(),
    ];
    let answer = command::run(client_command(environment, args.into_iter())).await?;
    answer.trim().parse().map_err(|error: ParseAnswerError| Failure::UnexpectedState(error.to_string()))
}

/// Sends one UDP datagram from each source port.
pub(crate) async fn flood_udp(environment: &Environment, server: SocketAddr) -> Result<(), Failure> {
    let args = ["flood".to_owned(), server.ip().to_string(), server.port().to_string()];
    command::run(client_command(environment, args.into_iter())).await.map(drop)
}

/// Returns the command that runs the `echo` program with these arguments as a client outside the cluster.
fn client_command(environment: &Environment, args: impl Iterator<Item = String>) -> Vec<String> {
    environment
        .client_command_prefix
        .iter()
        .cloned()
        .chain([environment.echo_path.clone()])
        .chain(args)
        .collect()
}

/// Open TCP connections to one server. When a test drops `Connections`, the client process is killed.
pub struct Connections {
    client_process: Child,
    client_input: ChildStdin,
    returned_lines: mpsc::UnboundedReceiver<String>,
}

impl Connections {
    /// Opens `connection_count` connections, and waits until the server has answered on each of them.
    pub(crate) async fn open(
        environment: &Environment,
        server: SocketAddr,
        connection_count: usize,
    ) -> Result<Self, Failure> {
        let (ip, port) = (server.ip().to_string(), server.port().to_string());
        let args = ["session".to_owned(), ip, port, connection_count.to_string()];
        let words = client_command(environment, args.into_iter());
        let to_failure = |reason: &str| Failure::Command(words.join(" "), reason.to_owned());
        let mut command = command::build_command(&words);
        let spawn_result =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut client_process = spawn_result.map_err(|error| to_failure(&error.to_string()))?;
        let (Some(client_input), Some(output)) = (client_process.stdin.take(), client_process.stdout.take())
        else {
            return Err(to_failure("the child process has no pipes"));
        };
        let (sender, returned_lines) = mpsc::unbounded_channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                // Sending fails when the test has ended and dropped the receiver.
                drop(sender.send(line));
            }
        });
        let mut connections = Self { client_process, client_input, returned_lines };
        connections.next_returned_line(OPEN_CONNECTIONS_TIMEOUT).await?;
        Ok(connections)
    }

    /// Sends a line over each connection, and waits until each connection has returned the line.
    pub async fn expect_echo(&mut self, line: &str) -> Result<(), Failure> {
        let write_result = writeln!(self.client_input, "{line}").and_then(|()| self.client_input.flush());
        write_result
            .map_err(|error| Failure::UnexpectedState(format!("cannot write to the client: {error}")))?;
        let returned_line = self.next_returned_line(RETURNED_LINE_TIMEOUT).await?;
        ensure_eq("line that the connections returned", &returned_line.as_str(), &line)
    }

    async fn next_returned_line(&mut self, deadline: Duration) -> Result<String, Failure> {
        let received_line = timeout(deadline, self.returned_lines.recv()).await;
        let to_failure =
            |_| Failure::UnexpectedState(format!("the connections returned no line within {deadline:?}"));
        received_line.map_err(to_failure)?.ok_or_else(|| self.client_failure())
    }

    /// Returns a failure with the error output of the client process. Waits until the process has closed this output.
    fn client_failure(&mut self) -> Failure {
        let mut message = String::new();
        let read_result =
            self.client_process.stderr.take().map(|mut stderr| stderr.read_to_string(&mut message));
        let message = read_result.transpose().map_or_else(|error| error.to_string(), |_| message);
        Failure::UnexpectedState(format!("the client process has ended: {}", message.trim()))
    }
}

impl Drop for Connections {
    fn drop(&mut self) {
        // Errors are ignored, because the process may have ended already.
        drop(self.client_process.kill());
        drop(self.client_process.wait());
    }
}

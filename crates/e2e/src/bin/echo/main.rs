//! The `echo` program: a server that returns the client's address, and its client. Parses the arguments.

mod client;
mod server;

use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use e2e::Target;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

const USAGE: &str = "\
usage: echo PORT|FIRST-LAST...
         serve TCP and UDP on these ports
       echo listen ADDRESS PORT
         serve TCP and UDP on this port of one address
       echo client tcp|udp ADDRESS PORT [SECONDS]
         send one request, and print the answer
       echo batch SECONDS PROTOCOL/ADDRESS/PORT...
         send a request to all targets at the same time, and print one line for each
       echo session ADDRESS PORT [COUNT]
         open COUNT TCP connections (default 1), send each line of the standard input over all of them,
         and print the line when all of them have returned it
       echo send-until-answered ADDRESS PORT SECONDS [BYTES]
         send UDP datagrams of BYTES bytes from one socket until one is answered, and print the answer
       echo flood ADDRESS PORT
         send one UDP datagram from each source port above 1023";
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(2);
/// The maximum value of the arguments COUNT and BYTES.
const MAX_ARGUMENT_VALUE: usize = 60_000;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    raise_open_file_limit();
    let result = match args.as_slice() {
        [] => Err(USAGE.to_owned()),
        ["client", args @ ..] => run_client(args).await,
        ["batch", seconds, targets @ ..] => run_batch(seconds, targets).await,
        ["listen", host, port] => listen(host, port).await,
        ["session", host, port] => run_session(host, port, "1"),
        ["session", host, port, count] => run_session(host, port, count),
        ["flood", host, port] => run_flood(host, port),
        ["send-until-answered", host, port, seconds] => send_until_answered(host, port, seconds, "1").await,
        ["send-until-answered", host, port, seconds, bytes] => {
            send_until_answered(host, port, seconds, bytes).await
        }
        ports => serve(ports).await,
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("echo: {reason}");
            ExitCode::FAILURE
        }
    }
}

/// Raises the soft limit of open files to the hard limit. Each connection needs a descriptor, and the usual soft limit
/// is 1,024. If the limit cannot be raised, connections beyond the soft limit fail.
fn raise_open_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

async fn run_client(args: &[&str]) -> Result<(), String> {
    let (target, seconds) = match *args {
        [protocol, host, port] => (format!("{protocol}/{host}/{port}"), None),
        [protocol, host, port, seconds] => (format!("{protocol}/{host}/{port}"), Some(seconds)),
        _ => return Err(USAGE.to_owned()),
    };
    let timeout = seconds.map_or(Ok(DEFAULT_TIMEOUT), parse_seconds)?;
    println!("{}", client::send_request(parse_target(&target)?, timeout).await?);
    Ok(())
}

async fn run_batch(seconds: &str, targets: &[&str]) -> Result<(), String> {
    let targets = targets.iter().map(|target| parse_target(target)).collect::<Result<Vec<_>, _>>()?;
    if client::send_batch(&targets, parse_seconds(seconds)?).await {
        Ok(())
    } else {
        Err("some targets did not answer".to_owned())
    }
}

fn run_session(host: &str, port: &str, count: &str) -> Result<(), String> {
    let server = parse_address(host, port)?;
    client::run_session(server, parse_number(count)?, DEFAULT_TIMEOUT).map_err(|error| error.to_string())
}

fn run_flood(host: &str, port: &str) -> Result<(), String> {
    client::flood_udp(parse_address(host, port)?).map_err(|error| error.to_string())
}

async fn send_until_answered(host: &str, port: &str, seconds: &str, bytes: &str) -> Result<(), String> {
    let (server, length) = (parse_address(host, port)?, parse_number(bytes)?);
    let answer = client::send_until_answered(server, length, parse_seconds(seconds)?).await;
    println!("{}", answer.map_err(|error| error.to_string())?);
    Ok(())
}

async fn serve(ports: &[&str]) -> Result<(), String> {
    let ranges = ports.iter().map(|range| parse_range(range)).collect::<Result<Vec<_>, _>>()?;
    server::serve(ranges.into_iter().flatten()).await.map_err(|error| error.to_string())
}

async fn listen(host: &str, port: &str) -> Result<(), String> {
    let address = parse_address(host, port)?;
    server::serve_on_addresses(std::iter::once(vec![address])).await.map_err(|error| error.to_string())
}

fn parse_target(target: &str) -> Result<Target, String> {
    target.parse().map_err(|error: e2e::ParseTargetError| error.to_string())
}

fn parse_seconds(text: &str) -> Result<Duration, String> {
    let seconds =
        text.parse().map_err(|_| format!("{text:?} is not a number of seconds; expected for example 1.5"))?;
    Duration::try_from_secs_f64(seconds)
        .map_err(|_| format!("{text:?} is not a number of seconds; expected for example 1.5"))
}

fn parse_address(host: &str, port: &str) -> Result<SocketAddr, String> {
    let host: IpAddr =
        host.parse().map_err(|_| format!("{host:?} is not an IP address; expected for example 192.0.2.1"))?;
    Ok((host, parse_port(port)?).into())
}

fn parse_number(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| (1..=MAX_ARGUMENT_VALUE).contains(number));
    number.ok_or_else(|| format!("{text:?} is not valid; expected a number from 1 to {MAX_ARGUMENT_VALUE}"))
}

fn parse_port(text: &str) -> Result<u16, String> {
    let port = text.parse().ok().filter(|port| *port != 0);
    port.ok_or_else(|| format!("{text:?} is not a port; expected a number from 1 to 65535\n{USAGE}"))
}

fn parse_range(text: &str) -> Result<std::ops::RangeInclusive<u16>, String> {
    let (first_port, last_port) = text.split_once('-').unwrap_or((text, text));
    let range = parse_port(first_port)?..=parse_port(last_port)?;
    if range.is_empty() {
        Err(format!("the port range {text:?} is empty; expected FIRST-LAST"))
    } else {
        Ok(range)
    }
}

//! The `echo` program: a server that says who asked it, and its client. Reads the arguments; does no other I/O.

mod client;
mod server;

use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use e2e::Target;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

const USAGE: &str = "usage: echo PORT|FIRST-LAST...                      serve TCP and UDP on these ports
       echo client tcp|udp ADDRESS PORT [SECONDS]  ask once, print the answer
       echo batch SECONDS PROTOCOL/ADDRESS/PORT... ask all at once, print one line for each
       echo session ADDRESS PORT [COUNT]           send lines over one TCP connection, print what returns;
                                                   over COUNT, once it has returned over all of them
       echo insist ADDRESS PORT SECONDS [BYTES]    send datagrams of one flow until one is answered, by as
                                                   many bytes; print the answer
       echo flood ADDRESS PORT                     send a datagram from each port above 1023";
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(2);
/// Of connections, and of bytes in a datagram.
const MAX_COUNT: usize = 60_000;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    raise_the_limit_of_files();
    let outcome = match args.as_slice() {
        [] => Err(USAGE.to_owned()),
        ["client", args @ ..] => client(args).await,
        ["batch", seconds, targets @ ..] => batch(seconds, targets).await,
        ["session", host, port] => session(host, port, "1"),
        ["session", host, port, count] => session(host, port, count),
        ["flood", host, port] => flood(host, port),
        ["insist", host, port, seconds] => insist(host, port, seconds, "1").await,
        ["insist", host, port, seconds, bytes] => insist(host, port, seconds, bytes).await,
        ports => serve(ports).await,
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("echo: {reason}");
            ExitCode::FAILURE
        }
    }
}

/// Each connection takes one, and the usual limit is 1,024. Where it can't be raised, connections beyond it fail.
fn raise_the_limit_of_files() {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

async fn client(args: &[&str]) -> Result<(), String> {
    let (target, seconds) = match *args {
        [protocol, host, port] => (format!("{protocol}/{host}/{port}"), None),
        [protocol, host, port, seconds] => (format!("{protocol}/{host}/{port}"), Some(seconds)),
        _ => return Err(USAGE.to_owned()),
    };
    let timeout = seconds.map_or(Ok(DEFAULT_TIMEOUT), parse_seconds)?;
    println!("{}", client::ask(parse(&target)?, timeout).await?);
    Ok(())
}

async fn batch(seconds: &str, targets: &[&str]) -> Result<(), String> {
    let targets = targets.iter().map(|target| parse(target)).collect::<Result<Vec<_>, _>>()?;
    if client::batch(&targets, parse_seconds(seconds)?).await {
        Ok(())
    } else {
        Err("some targets did not answer".to_owned())
    }
}

fn session(host: &str, port: &str, count: &str) -> Result<(), String> {
    let server = parse_address(host, port)?;
    client::session(server, parse_count(count)?, DEFAULT_TIMEOUT).map_err(|error| error.to_string())
}

fn flood(host: &str, port: &str) -> Result<(), String> {
    client::flood(parse_address(host, port)?).map_err(|error| error.to_string())
}

async fn insist(host: &str, port: &str, seconds: &str, bytes: &str) -> Result<(), String> {
    let (server, length) = (parse_address(host, port)?, parse_count(bytes)?);
    let answer = client::insist(server, length, parse_seconds(seconds)?).await;
    println!("{}", answer.map_err(|error| error.to_string())?);
    Ok(())
}

async fn serve(ports: &[&str]) -> Result<(), String> {
    let ranges = ports.iter().map(|range| parse_range(range)).collect::<Result<Vec<_>, _>>()?;
    server::serve(ranges.into_iter().flatten()).await.map_err(|error| error.to_string())
}

fn parse(target: &str) -> Result<Target, String> {
    target.parse().map_err(|error: e2e::ParseTargetError| error.to_string())
}

fn parse_seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().map_err(|_| format!("{text:?} is not a number of seconds"))?;
    Duration::try_from_secs_f64(seconds).map_err(|_| format!("{text:?} is not a number of seconds"))
}

fn parse_address(host: &str, port: &str) -> Result<SocketAddr, String> {
    let host: IpAddr = host.parse().map_err(|_| format!("{host:?} is not an IP address"))?;
    Ok((host, parse_port(port)?).into())
}

fn parse_count(text: &str) -> Result<usize, String> {
    let count = text.parse().ok().filter(|count| (1..=MAX_COUNT).contains(count));
    count.ok_or_else(|| format!("{text:?} is not a number from 1 to {MAX_COUNT}"))
}

fn parse_port(text: &str) -> Result<u16, String> {
    let port = text.parse().ok().filter(|port| *port != 0);
    port.ok_or_else(|| format!("{text:?} is not a port, which is a number from 1 to 65535\n{USAGE}"))
}

fn parse_range(text: &str) -> Result<std::ops::RangeInclusive<u16>, String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let range = parse_port(first)?..=parse_port(last)?;
    if range.is_empty() { Err(format!("{text:?} has no ports in it")) } else { Ok(range) }
}

//! The command line.

use std::ffi::OsString;

use clap::{Parser, Subcommand};
use contract::{Forward, ProxyArgs};

/// Forwards a pod's ports to a Service, in the kernel
#[derive(Parser, Clone, Debug)]
#[command(
    name = "akrobateo-lb",
    version,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true
)]
pub struct Cli {
    /// Something else than forwarding.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// What to forward.
    #[command(flatten)]
    pub proxy: Option<ProxyArgs>,
}

/// Something else than forwarding.
#[derive(Subcommand, Clone, Debug)]
pub enum Command {
    /// Switch IPv6 forwarding on and exit; in a privileged init container
    #[command(name = contract::proxy_args::ENABLE_IPV6_FORWARDING)]
    EnableIpv6Forwarding,
    /// Do nothing until told to end; for a pod that only keeps its hostPorts from others
    #[command(name = contract::proxy_args::RESERVE)]
    Reserve,
}

/// How the operator writes a forward.
const FORWARD: &str = "--forward=";

impl Cli {
    /// Reads the command line, its first word the program's name.
    ///
    /// Where there are many good forwards, clap gets only the first of them to see: of each argument it keeps
    /// several copies, in pieces of memory that don't come back.
    pub fn read(line: impl Iterator<Item = OsString>) -> Result<Self, clap::Error> {
        let mut forwards: Vec<Forward> = Vec::new();
        let (mut seen, mut after_whole) = (false, false);
        let for_clap = line.filter(|argument| {
            let text = argument.to_str().unwrap_or_default();
            // After an argument without a value, it might be meant as one.
            let may_take = seen && after_whole;
            after_whole = is_whole(text);
            match text.strip_prefix(FORWARD).and_then(|text| text.parse().ok()) {
                Some(forward) if may_take => {
                    forwards.push(forward);
                    false
                }
                good => {
                    seen |= good.is_some();
                    true
                }
            }
        });
        let mut cli = Self::try_parse_from(for_clap)?;
        if let Some(proxy) = &mut cli.proxy {
            proxy.forwards.append(&mut forwards);
        }
        Ok(cli)
    }
}

/// Whether the argument brings its value along.
fn is_whole(argument: &str) -> bool {
    argument.starts_with("--") && argument.contains('=')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn line(text: &str) -> Vec<OsString> {
        std::iter::once("akrobateo-lb").chain(text.split_whitespace()).map(OsString::from).collect()
    }

    fn argument() -> impl Strategy<Value = &'static str> {
        prop::sample::select(vec![
            "--forward=tcp/80=10.0.0.1:80",
            "--forward=udp/53=[fd00::1]:53",
            "--forward tcp/81=10.0.0.1:81",
            "--forward=tcp/82=web",
            "--forward=",
            "--forward",
            "--forwards=tcp/80=10.0.0.1:80",
            "--source=10.0.0.0/8",
            "--source fd00::/8",
            "--source --forward=tcp/83=10.0.0.1:83",
            "--probe-port=9",
            "reserve",
            "--help",
            "--",
        ])
    }

    proptest! {
        #[test]
        fn it_reads_what_clap_alone_reads(arguments in prop::collection::vec(argument(), 0..7)) {
            let line = line(&arguments.join(" "));
            let sorted = |cli: Cli| cli.proxy.map(|mut proxy| {
                proxy.forwards.sort_unstable();
                proxy
            });
            let read = Cli::read(line.clone().into_iter()).map(sorted).map_err(|error| error.kind());
            let expected = Cli::try_parse_from(line).map(sorted).map_err(|error| error.kind());
            prop_assert_eq!(read, expected);
        }
    }
}

//! The command line. Pure.

use std::ffi::OsString;
use std::fmt::{Display, Write as _};
use std::str::FromStr;

use akrobateo_core::ProxyArgs;
use akrobateo_core::proxy_args::{ENABLE_IPV6_FORWARDING, RESERVE, options};
use lexopt::{Arg, Parser, ValueExt};

/// What the command line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Forward.
    Forward(ProxyArgs),
    /// Switch IPv6 forwarding on and exit; in a privileged init container.
    EnableIpv6Forwarding,
    /// Do nothing until told to end; for a pod that only keeps its hostPorts from others.
    Reserve,
    /// Print [`help`].
    Help,
    /// Print name and version.
    Version,
}

/// What is wrong with the command line.
#[derive(Debug, thiserror::Error)]
pub enum UsageError {
    /// Something that is no argument, or lacks its value.
    #[error("{0}; --help tells what is allowed")]
    Line(#[from] lexopt::Error),
    /// A value that means nothing.
    #[error("--{option} {value}: {reason}; --help tells what is allowed")]
    Value {
        /// The option.
        option: &'static str,
        /// What was given.
        value: String,
        /// What is allowed.
        reason: String,
    },
    /// An option that has one value.
    #[error("--{0} is given twice: it has one value")]
    Twice(&'static str),
    /// A command that has no options.
    #[error("{0} stands alone, without other arguments")]
    NotAlone(&'static str),
    /// Nothing to do.
    #[error("--forward is missing; --help tells what is allowed")]
    NothingToForward,
}

impl Command {
    /// Reads the command line, its first word the program's name.
    pub fn read(line: impl IntoIterator<Item = OsString>) -> Result<Self, UsageError> {
        let mut parser = Parser::from_iter(line);
        let mut forwards = Vec::new();
        let mut sources = Vec::new();
        let (mut probe_port, mut data_path, mut proxy_protocol) = (None, None, None);
        let mut first = true;
        while let Some(argument) = parser.next()? {
            match argument {
                Arg::Long("forward") => forwards.push(value("forward", &mut parser)?),
                Arg::Long("source") => sources.push(value("source", &mut parser)?),
                Arg::Long("probe-port") => once("probe-port", &mut probe_port, &mut parser)?,
                Arg::Long("data-path") => once("data-path", &mut data_path, &mut parser)?,
                Arg::Long("proxy-protocol") => once("proxy-protocol", &mut proxy_protocol, &mut parser)?,
                Arg::Short('h') | Arg::Long("help") => return Ok(Self::Help),
                Arg::Short('V') | Arg::Long("version") => return Ok(Self::Version),
                Arg::Value(word) if word == ENABLE_IPV6_FORWARDING => {
                    return alone(first, ENABLE_IPV6_FORWARDING, Self::EnableIpv6Forwarding, &mut parser);
                }
                Arg::Value(word) if word == RESERVE => {
                    return alone(first, RESERVE, Self::Reserve, &mut parser);
                }
                other => return Err(other.unexpected().into()),
            }
            first = false;
        }
        if forwards.is_empty() {
            return Err(UsageError::NothingToForward);
        }
        let defaults = ProxyArgs::new(forwards);
        Ok(Self::Forward(ProxyArgs {
            sources,
            probe_port: probe_port.unwrap_or(defaults.probe_port),
            data_path: data_path.unwrap_or(defaults.data_path),
            proxy_protocol,
            ..defaults
        }))
    }
}

fn value<T: FromStr<Err: Display>>(option: &'static str, parser: &mut Parser) -> Result<T, UsageError> {
    let value = parser.value()?.string()?;
    value.parse().map_err(|error: T::Err| UsageError::Value { option, reason: error.to_string(), value })
}

fn once<T: FromStr<Err: Display>>(
    option: &'static str,
    slot: &mut Option<T>,
    parser: &mut Parser,
) -> Result<(), UsageError> {
    match slot.replace(value(option, parser)?) {
        None => Ok(()),
        Some(_) => Err(UsageError::Twice(option)),
    }
}

fn alone(
    first: bool,
    name: &'static str,
    command: Command,
    parser: &mut Parser,
) -> Result<Command, UsageError> {
    if first && parser.next()?.is_none() { Ok(command) } else { Err(UsageError::NotAlone(name)) }
}

/// What is allowed.
#[must_use]
pub fn help() -> String {
    let mut text = format!(
        "Forwards a pod's ports to a Service\n\n\
         Usage: akrobateo-lb --forward PROTOCOL/PORT=ADDRESS:PORT... [OPTIONS]\n\
         \x20      akrobateo-lb {ENABLE_IPV6_FORWARDING}   Switch IPv6 forwarding on and exit; in a privileged init container\n\
         \x20      akrobateo-lb {RESERVE}                  Do nothing until told to end; for a pod that only keeps its\n\
         \x20                                            hostPorts from others\n\nOptions:\n"
    );
    for option in options() {
        let default = option.default.map(|default| format!(" [default: {default}]")).unwrap_or_default();
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  --{} {}\n      {}{default}", option.name, option.value, option.help);
    }
    text + "  -h, --help\n      Print this\n  -V, --version\n      Print the version\n"
}

#[cfg(test)]
mod tests {
    use akrobateo_core::{DataPath, Forward, Protocol, ProxyProtocol};
    use ipnet::IpNet;
    use proptest::prelude::*;

    use super::*;

    fn read(line: &[String]) -> Result<Command, String> {
        let words = std::iter::once("akrobateo-lb").chain(line.iter().map(String::as_str));
        Command::read(words.map(OsString::from)).map_err(|error| error.to_string())
    }

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    fn forward() -> impl Strategy<Value = Forward> {
        let address = any::<std::net::IpAddr>().prop_filter("specified", |ip| !ip.is_unspecified());
        (prop::sample::select(&Protocol::ALL[..]), any::<std::num::NonZeroU16>(), address, 1..=u16::MAX)
            .prop_map(|(protocol, port, ip, to)| Forward { protocol, port, target: (ip, to).into() })
    }

    fn source() -> impl Strategy<Value = IpNet> {
        (any::<std::net::IpAddr>(), 0..=32_u8).prop_map(|(ip, len)| IpNet::new_assert(ip, len))
    }

    fn proxy_protocol() -> impl Strategy<Value = ProxyProtocol> {
        let ports = prop::collection::btree_set(1..=u16::MAX, 0..4);
        (prop::sample::select(&["v1", "v2"][..]), ports).prop_map(|(version, ports)| {
            let ports: Vec<_> = ports.iter().map(ToString::to_string).collect();
            let colon = if ports.is_empty() { "" } else { ":" };
            format!("{version}{colon}{}", ports.join(",")).parse().unwrap()
        })
    }

    fn args() -> impl Strategy<Value = ProxyArgs> {
        (
            prop::collection::vec(forward(), 1..20),
            prop::collection::vec(source(), 0..5),
            1..=u16::MAX,
            prop::sample::select(&[DataPath::Kernel, DataPath::Userspace][..]),
            prop::option::of(proxy_protocol()),
        )
            .prop_map(|(forwards, sources, probe_port, data_path, proxy_protocol)| ProxyArgs {
                forwards,
                sources,
                probe_port,
                data_path,
                proxy_protocol,
            })
    }

    fn argument() -> impl Strategy<Value = String> {
        let known = prop::sample::select(vec![
            "--forward=tcp/80=10.0.0.1:80",
            "--forward",
            "tcp/81=10.0.0.1:81",
            "--forward=",
            "--forwards=tcp/80=10.0.0.1:80",
            "--source=10.0.0.0/8",
            "--probe-port=9",
            "--probe-port",
            "reserve",
            "--help",
            "--",
            "-",
            "-x",
        ]);
        prop_oneof![8 => known.prop_map(str::to_owned), 1 => any::<String>()]
    }

    proptest! {
        #[test]
        fn what_the_operator_writes_is_what_the_data_plane_reads(args in args(), apart in any::<bool>()) {
            let line = args.to_args();
            let split = |word: &String| {
                let (name, value) = word.split_once('=').unwrap();
                [name.to_owned(), value.to_owned()]
            };
            let line = if apart { line.iter().flat_map(split).collect() } else { line };
            prop_assert_eq!(read(&line), Ok(Command::Forward(args)));
        }

        #[test]
        fn whatever_is_written_is_read_as_it_stands_or_refused(
            line in prop::collection::vec(argument(), 0..7),
        ) {
            if let Ok(Command::Forward(args)) = read(&line) {
                let given = line.join("\n").matches("--forward").count();
                prop_assert_eq!(args.forwards.len(), given);
                prop_assert!(!line.iter().any(|word| word == "reserve" || word == "--help"));
            }
        }
    }

    #[test]
    fn what_existing_proxies_were_told_stays_the_same() {
        let line = words("--forward=tcp/80=10.0.0.1:80 --probe-port=10290");
        let args = ProxyArgs::new(vec!["tcp/80=10.0.0.1:80".parse().unwrap()]);
        assert_eq!(args.to_args(), line);
        assert_eq!(read(&line), Ok(Command::Forward(args)));
    }

    #[test]
    fn what_is_wrong_is_named_and_what_is_allowed_too() {
        for (line, wrong) in [
            ("", "--forward is missing; --help tells what is allowed"),
            ("--forward", "missing argument for option '--forward'; --help tells what is allowed"),
            ("--forwards=tcp/80=10.0.0.1:80", "invalid option '--forwards'; --help tells what is allowed"),
            ("web", "unexpected argument \"web\"; --help tells what is allowed"),
            ("--forward=web", "--forward web: "),
            ("--probe-port=0x1", "--probe-port 0x1: invalid digit"),
            (
                "--data-path=ebpf",
                "--data-path ebpf: \"ebpf\" is not a data path; expected kernel or userspace",
            ),
            ("--probe-port=1 --probe-port=2", "--probe-port is given twice: it has one value"),
            ("--probe-port=1 reserve", "reserve stands alone, without other arguments"),
            ("reserve --probe-port=1", "reserve stands alone, without other arguments"),
        ] {
            let error = read(&words(line)).unwrap_err();
            assert!(error.starts_with(wrong), "{line}: {error}");
        }
    }

    #[test]
    fn commands_are_read_and_the_help_tells_of_all_options() {
        assert_eq!(read(&words("reserve")), Ok(Command::Reserve));
        assert_eq!(read(&words("enable-ipv6-forwarding")), Ok(Command::EnableIpv6Forwarding));
        assert_eq!(read(&words("--forward=x --help")).unwrap_err().split(':').next(), Some("--forward x"));
        assert_eq!(read(&words("--probe-port=1 -h")), Ok(Command::Help));
        assert_eq!(read(&words("--version")), Ok(Command::Version));
        let help = help();
        for option in options() {
            assert!(help.contains(&format!("--{} {}", option.name, option.value)), "{help}");
        }
        assert!(help.contains("[default: 10290]"), "{help}");
    }
}

//! Parses the command line. Pure.

use std::ffi::OsString;
use std::fmt::{Display, Write as _};
use std::str::FromStr;

use akrobateo_core::ProxyArgs;
use akrobateo_core::proxy_args::{ENABLE_IPV6_FORWARDING_COMMAND, RESERVE_PORTS_COMMAND, options};
use lexopt::{Arg, Parser, ValueExt};

/// A parsed command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Forwards traffic.
    Forward(ProxyArgs),
    /// Switches IPv6 forwarding on if possible, and exits. A privileged init container runs this command.
    EnableIpv6Forwarding,
    /// Does nothing until SIGTERM. The pod's hostPorts stay reserved while the process runs.
    ReserveHostPorts,
    /// Prints [`help`].
    Help,
    /// Prints the name and the version of the program.
    Version,
}

/// The error for a wrong command line.
#[derive(Debug, thiserror::Error)]
pub enum UsageError {
    /// An unknown argument, or an option without its value.
    #[error("{0}; see --help")]
    InvalidSyntax(#[from] lexopt::Error),
    /// An option with a wrong value.
    #[error("--{option} {value}: {reason}; see --help")]
    InvalidValue {
        /// The option, without dashes.
        option: &'static str,
        /// The option's value on the command line.
        value: String,
        /// The reason why the value is wrong, and the expected value.
        reason: String,
    },
    /// An option that occurs twice. Only `--forward` and `--source` may occur several times.
    #[error("--{0} is given twice; it may have only one value")]
    RepeatedOption(&'static str),
    /// A command with other arguments. A command must be the only argument.
    #[error("{0} is a command without arguments; remove the other arguments")]
    ExtraArguments(&'static str),
    /// The command line has no `--forward`.
    #[error("--forward is missing; give at least one, as in --forward=tcp/80=10.96.3.7:80, or see --help")]
    MissingForward,
}

impl Command {
    /// Parses the words of the command line. The first word is the program's name.
    pub fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Self, UsageError> {
        let mut parser = Parser::from_iter(words);
        let mut forwards = Vec::new();
        let mut sources = Vec::new();
        let (mut probe_port, mut data_path, mut proxy_protocol) = (None, None, None);
        let mut is_first_argument = true;
        while let Some(argument) = parser.next()? {
            match argument {
                Arg::Long("forward") => forwards.push(parse_value("forward", &mut parser)?),
                Arg::Long("source") => sources.push(parse_value("source", &mut parser)?),
                Arg::Long("probe-port") => parse_once("probe-port", &mut probe_port, &mut parser)?,
                Arg::Long("data-path") => parse_once("data-path", &mut data_path, &mut parser)?,
                Arg::Long("proxy-protocol") => {
                    parse_once("proxy-protocol", &mut proxy_protocol, &mut parser)?;
                }
                Arg::Short('h') | Arg::Long("help") => return Ok(Self::Help),
                Arg::Short('V') | Arg::Long("version") => return Ok(Self::Version),
                Arg::Value(word) if word == ENABLE_IPV6_FORWARDING_COMMAND => {
                    return reject_other_arguments(
                        ENABLE_IPV6_FORWARDING_COMMAND,
                        Self::EnableIpv6Forwarding,
                        is_first_argument,
                        &mut parser,
                    );
                }
                Arg::Value(word) if word == RESERVE_PORTS_COMMAND => {
                    return reject_other_arguments(
                        RESERVE_PORTS_COMMAND,
                        Self::ReserveHostPorts,
                        is_first_argument,
                        &mut parser,
                    );
                }
                unknown => return Err(unknown.unexpected().into()),
            }
            is_first_argument = false;
        }
        if forwards.is_empty() {
            return Err(UsageError::MissingForward);
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

fn parse_value<T: FromStr<Err: Display>>(option: &'static str, parser: &mut Parser) -> Result<T, UsageError> {
    let value = parser.value()?.string()?;
    value.parse().map_err(|error: T::Err| UsageError::InvalidValue {
        option,
        reason: error.to_string(),
        value,
    })
}

/// Parses the value of an option and stores it in `parsed_value`. Fails if `parsed_value` already has a value.
fn parse_once<T: FromStr<Err: Display>>(
    option: &'static str,
    parsed_value: &mut Option<T>,
    parser: &mut Parser,
) -> Result<(), UsageError> {
    match parsed_value.replace(parse_value(option, parser)?) {
        None => Ok(()),
        Some(_) => Err(UsageError::RepeatedOption(option)),
    }
}

/// Returns `command`. Fails if the command line has arguments in addition to the word `command_name`.
fn reject_other_arguments(
    command_name: &'static str,
    command: Command,
    is_first_argument: bool,
    parser: &mut Parser,
) -> Result<Command, UsageError> {
    if is_first_argument && parser.next()?.is_none() {
        Ok(command)
    } else {
        Err(UsageError::ExtraArguments(command_name))
    }
}

/// Returns the text of `--help`.
#[must_use]
pub fn help() -> String {
    let mut text = format!(
        "Forwards a pod's ports to a Service\n\n\
         Usage: akrobateo-lb --forward PROTOCOL/PORT=ADDRESS:PORT... [OPTIONS]\n\
         \x20      akrobateo-lb {ENABLE_IPV6_FORWARDING_COMMAND}   \
         Switch IPv6 forwarding on, if possible, and exit; for a\n\
         \x20                                            privileged init container\n\
         \x20      akrobateo-lb {RESERVE_PORTS_COMMAND}                  \
         Do nothing until SIGTERM; for a pod that only reserves its\n\
         \x20                                            hostPorts\n\nOptions:\n"
    );
    for option in options() {
        let default_note = option.default.map(|default| format!(" [default: {default}]")).unwrap_or_default();
        // Writing to a String cannot fail.
        let _ =
            writeln!(text, "  --{} {}\n      {}{default_note}", option.name, option.value_form, option.help);
    }
    text + "  -h, --help\n      Print this help\n  -V, --version\n      Print the version\n"
}

#[cfg(test)]
mod tests {
    use akrobateo_core::{DataPath, Forward, Protocol, ProxyProtocol};
    use ipnet::IpNet;
    use proptest::prelude::*;

    use super::*;

    fn parse(words: &[String]) -> Result<Command, String> {
        let words = std::iter::once("akrobateo-lb").chain(words.iter().map(String::as_str));
        Command::parse(words.map(OsString::from)).map_err(|error| error.to_string())
    }

    fn split_words(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    fn any_forward() -> impl Strategy<Value = Forward> {
        let address = any::<std::net::IpAddr>().prop_filter("specified", |ip| !ip.is_unspecified());
        (prop::sample::select(&Protocol::ALL[..]), any::<std::num::NonZeroU16>(), address, 1..=u16::MAX)
            .prop_map(|(protocol, port, ip, target_port)| Forward {
                protocol,
                port,
                target: (ip, target_port).into(),
            })
    }

    fn any_source_range() -> impl Strategy<Value = IpNet> {
        (any::<std::net::IpAddr>(), 0..=32_u8).prop_map(|(ip, length)| IpNet::new_assert(ip, length))
    }

    fn any_proxy_protocol() -> impl Strategy<Value = ProxyProtocol> {
        let ports = prop::collection::btree_set(1..=u16::MAX, 0..4);
        (prop::sample::select(&["v1", "v2"][..]), ports).prop_map(|(version, ports)| {
            let ports: Vec<_> = ports.iter().map(ToString::to_string).collect();
            let colon = if ports.is_empty() { "" } else { ":" };
            format!("{version}{colon}{}", ports.join(",")).parse().unwrap()
        })
    }

    fn any_args() -> impl Strategy<Value = ProxyArgs> {
        (
            prop::collection::vec(any_forward(), 1..20),
            prop::collection::vec(any_source_range(), 0..5),
            1..=u16::MAX,
            prop::sample::select(&[DataPath::Kernel, DataPath::Userspace][..]),
            prop::option::of(any_proxy_protocol()),
        )
            .prop_map(|(forwards, sources, probe_port, data_path, proxy_protocol)| ProxyArgs {
                forwards,
                sources,
                probe_port,
                data_path,
                proxy_protocol,
            })
    }

    fn any_word() -> impl Strategy<Value = String> {
        let known_words = prop::sample::select(vec![
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
        prop_oneof![8 => known_words.prop_map(str::to_owned), 1 => any::<String>()]
    }

    proptest! {
        #[test]
        fn parser_returns_the_written_arguments(
            args in any_args(),
            is_value_a_separate_word in any::<bool>(),
        ) {
            let words = args.to_args();
            let split_at_equals_sign = |word: &String| {
                let (name, value) = word.split_once('=').unwrap();
                [name.to_owned(), value.to_owned()]
            };
            let words = if is_value_a_separate_word {
                words.iter().flat_map(split_at_equals_sign).collect()
            } else {
                words
            };
            prop_assert_eq!(parse(&words), Ok(Command::Forward(args)));
        }

        #[test]
        fn parser_never_ignores_a_word(
            words in prop::collection::vec(any_word(), 0..7),
        ) {
            if let Ok(Command::Forward(args)) = parse(&words) {
                let forward_count = words.join("\n").matches("--forward").count();
                prop_assert_eq!(args.forwards.len(), forward_count);
                prop_assert!(!words.iter().any(|word| word == "reserve" || word == "--help"));
            }
        }
    }

    #[test]
    fn default_options_are_written_as_forward_and_probe_port_only() {
        let words = split_words("--forward=tcp/80=10.0.0.1:80 --probe-port=10290");
        let args = ProxyArgs::new(vec!["tcp/80=10.0.0.1:80".parse().unwrap()]);
        assert_eq!(args.to_args(), words);
        assert_eq!(parse(&words), Ok(Command::Forward(args)));
    }

    #[test]
    fn error_says_which_argument_is_invalid() {
        for (line, expected) in [
            ("", "--forward is missing; "),
            ("--forward", "missing argument for option '--forward'; see --help"),
            ("--forwards=tcp/80=10.0.0.1:80", "invalid option '--forwards'; see --help"),
            ("web", "unexpected argument \"web\"; see --help"),
            ("--forward=web", "--forward web: "),
            ("--probe-port=0x1", "--probe-port 0x1: invalid digit"),
            (
                "--data-path=ebpf",
                "--data-path ebpf: \"ebpf\" is not a data path; expected kernel or userspace",
            ),
            ("--probe-port=1 --probe-port=2", "--probe-port is given twice; it may have only one value"),
            ("--probe-port=1 reserve", "reserve is a command without arguments"),
            ("reserve --probe-port=1", "reserve is a command without arguments"),
        ] {
            let error = parse(&split_words(line)).unwrap_err();
            assert!(error.starts_with(expected), "{line}: {error}");
        }
    }

    #[test]
    fn commands_are_parsed() {
        for (line, command) in [
            ("reserve", Command::ReserveHostPorts),
            ("enable-ipv6-forwarding", Command::EnableIpv6Forwarding),
            ("--probe-port=1 -h", Command::Help),
            ("--version", Command::Version),
        ] {
            assert_eq!(parse(&split_words(line)), Ok(command));
        }
    }

    #[test]
    fn invalid_option_before_help_is_reported() {
        let error = parse(&split_words("--forward=x --help")).unwrap_err();
        assert!(error.starts_with("--forward x: "), "{error}");
    }

    #[test]
    fn help_lists_every_option_with_its_default() {
        let help = help();
        for option in options() {
            assert!(help.contains(&format!("--{} {}", option.name, option.value_form)), "{help}");
        }
        assert!(help.contains("[default: 10290]"), "{help}");
    }
}

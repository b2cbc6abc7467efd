//! The settings of `akrobateo-agent run`: its flags and environment variables. Pure.

use std::net::SocketAddr;
use std::path::PathBuf;

use akrobateo_services::settings::ServiceSettings;
use api_client::ConnectOptions;
use clap::Args;
use ipnet::IpNet;

/// The settings of the agent.
#[derive(Args, Clone, Debug)]
pub struct RunOptions {
    #[command(flatten)]
    pub(crate) services: ServiceSettings,

    /// Name of the node on which the agent runs
    #[arg(long, env = "NODE_NAME", value_name = "NAME")]
    pub(crate) node_name: String,

    /// Name of the operator to which the agent belongs
    #[arg(long, env = "INSTANCE", value_name = "NAME", default_value = akrobateo_core::DEFAULT_INSTANCE)]
    pub(crate) instance: String,

    /// Namespace of the proxies, or @service if each proxy is in the namespace of its Service
    #[arg(
        long,
        env = "LB_NAMESPACE",
        value_name = "NAMESPACE|@service",
        default_value = "akrobateo-proxies"
    )]
    pub(crate) lb_namespace: String,

    /// Ranges of the addresses of pods, comma-separated, in addition to the podCIDRs of the nodes; necessary if the
    /// network plugin uses other ranges
    #[arg(long, env = "POD_RANGES", value_name = "RANGES", default_value = "")]
    pod_ranges: PodRanges,

    /// Highest byte of the packet marks of the agent, from 1 to 255; set another byte if another program of the node uses
    /// this one in its marks
    #[arg(long, env = "MARK_BYTE", value_name = "BYTE", default_value = "0x6b", value_parser = parse_mark_byte)]
    pub(crate) mark_byte: u8,

    /// Watch the pods of the node, so that Services do not take the hostPorts of pods; if false, the agent needs no
    /// right to read pods
    #[arg(
        long,
        env = "WATCH_HOST_PORTS",
        value_name = "true|false",
        default_value_t = true,
        action = clap::ArgAction::Set
    )]
    pub(crate) watch_host_ports: bool,

    /// Name of the agents' DaemonSet; when it no longer selects the node, the agent removes its rules
    #[arg(long, env = "DAEMONSET", value_name = "NAME", default_value = "akrobateo-agent")]
    pub(crate) daemonset: String,

    /// File for the last configuration of the data path; with this file, a restarted agent maintains its rules and
    /// answers the other agents although the API server is unavailable
    #[arg(long, env = "STATE_FILE", value_name = "FILE")]
    pub(crate) state_file: Option<PathBuf>,

    /// IP address and TCP port of the HTTP server for /healthz, /readyz and /metrics
    #[arg(long, env = "HTTP_ADDRESS", value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8478")]
    pub(crate) http_address: SocketAddr,

    #[command(flatten)]
    pub(crate) connection: ConnectOptions,
}

impl RunOptions {
    /// Returns the configured ranges of pods.
    pub(crate) fn pod_ranges(&self) -> Vec<IpNet> {
        self.pod_ranges.0.clone()
    }
}

/// The value of `--pod-ranges`. The ranges are not a plain `Vec`, because clap would expect one occurrence of the flag
/// for each range.
#[derive(Clone, Debug)]
struct PodRanges(Vec<IpNet>);

impl std::str::FromStr for PodRanges {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        let parse = |part: &str| match part.parse::<IpNet>() {
            Ok(range) => Ok(range.trunc()),
            Err(_) => {
                Err(format!("{part:?} is not a range; expected ADDRESS/PREFIX, for example 10.244.0.0/16"))
            }
        };
        parts.map(parse).collect::<Result<_, _>>().map(Self)
    }
}

/// Parses the value of `--mark-byte`: a decimal number, or a hexadecimal number after `0x`.
fn parse_mark_byte(text: &str) -> Result<u8, String> {
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u8::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.ok().filter(|byte| *byte > 0).ok_or_else(|| {
        format!("{text:?} is not a byte; expected a number from 1 to 255, for example 0x6b or 107")
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        options: RunOptions,
    }

    #[test]
    fn pod_ranges_are_comma_separated() {
        let parse = |ranges: &str| {
            let cli = Cli::try_parse_from(["agent", "--node-name=n1", &format!("--pod-ranges={ranges}")]);
            cli.map(|cli| cli.options.pod_ranges().iter().map(ToString::to_string).collect::<Vec<_>>())
        };
        assert_eq!(parse("10.244.1.0/16, fd00::/48").unwrap(), ["10.244.0.0/16", "fd00::/48"]);
        assert!(parse("").unwrap().is_empty());
        assert!(parse("10.244.0.0").unwrap_err().to_string().contains("ADDRESS/PREFIX"));
    }

    #[test]
    fn mark_byte_is_a_decimal_or_hexadecimal_number() {
        assert_eq!(
            ["107", "0x6b", "0xFF", "1"].map(|text| parse_mark_byte(text).unwrap()),
            [107, 107, 255, 1]
        );
        for text in ["0", "256", "0x100", "6b", "-1", "", "0x"] {
            assert!(
                parse_mark_byte(text).unwrap_err().contains("expected a number from 1 to 255"),
                "{text:?}"
            );
        }
    }
}

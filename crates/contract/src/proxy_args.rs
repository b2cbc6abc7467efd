//! The arguments of the data plane: written by the operator, read by `akrobateo-lb`.

use clap::Args;
use ipnet::IpNet;

use crate::data_path::DataPath;
use crate::forward::Forward;
use crate::probe;
use crate::proxy_protocol::ProxyProtocol;

/// The argument that makes `akrobateo-lb` switch IPv6 forwarding on and exit; for a privileged init container.
pub const ENABLE_IPV6_FORWARDING: &str = "enable-ipv6-forwarding";

/// The argument that makes `akrobateo-lb` do nothing until it is told to end: for a pod that only keeps ports from others.
pub const RESERVE: &str = "reserve";

/// Everything that a proxy pod is told, so that `kubectl describe` shows what it does.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct ProxyArgs {
    /// Forward a port: PROTOCOL/PORT=ADDRESS:PORT, for example tcp/80=10.96.3.7:80; once per port and family
    #[arg(long = "forward", value_name = "PROTOCOL/PORT=ADDRESS:PORT", required = true)]
    pub forwards: Vec<Forward>,

    /// Let only these clients in, for example 10.0.0.0/8; may be repeated. Without it, everybody; with it,
    /// nobody of a family of which no range is given
    #[arg(long = "source", value_name = "CIDR")]
    pub sources: Vec<IpNet>,

    /// TCP port inside the pod that answers the readiness probe; must not be a forwarded one
    #[arg(long, value_name = "PORT", default_value_t = probe::PREFERRED_PORT)]
    pub probe_port: u16,

    /// Where to forward: kernel by nftables, or userspace, which needs no capability
    #[arg(long, value_name = "kernel|userspace", default_value_t)]
    pub data_path: DataPath,

    /// Tell backends the client's address by the PROXY protocol, on all TCP ports or on some; only with
    /// --data-path userspace
    #[arg(long, value_name = "v1|v2[:PORT,PORT...]")]
    pub proxy_protocol: Option<ProxyProtocol>,
}

impl ProxyArgs {
    /// These ports, for everybody, with what the arguments default to.
    #[must_use]
    pub fn new(forwards: Vec<Forward>) -> Self {
        let (sources, probe_port, data_path) = (Vec::new(), probe::PREFERRED_PORT, DataPath::default());
        Self { forwards, sources, probe_port, data_path, proxy_protocol: None }
    }

    /// The arguments as the data plane reads them back. The path and the protocol are written only where they
    /// are not the default, so that what was written before they existed stays the same.
    #[must_use]
    pub fn to_args(&self) -> Vec<String> {
        let Self { forwards, sources, probe_port, data_path, proxy_protocol } = self;
        let forwards = forwards.iter().map(|forward| format!("--forward={forward}"));
        let sources = sources.iter().map(|source| format!("--source={source}"));
        let data_path = (*data_path != DataPath::default()).then(|| format!("--data-path={data_path}"));
        let proxy_protocol = proxy_protocol.as_ref().map(|protocol| format!("--proxy-protocol={protocol}"));
        let always = forwards.chain(sources).chain([format!("--probe-port={probe_port}")]);
        always.chain(data_path).chain(proxy_protocol).collect()
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use proptest::prelude::*;

    use super::*;
    use crate::forward::Protocol;
    use crate::proxy_protocol::tests::any_proxy_protocol;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        proxy: ProxyArgs,
    }

    fn forward() -> impl Strategy<Value = Forward> {
        let address = any::<std::net::IpAddr>().prop_filter("specified", |ip| !ip.is_unspecified());
        (prop::sample::select(&Protocol::ALL[..]), any::<std::num::NonZeroU16>(), address, 1..=u16::MAX)
            .prop_map(|(protocol, port, ip, to)| Forward { protocol, port, target: (ip, to).into() })
    }

    fn source() -> impl Strategy<Value = IpNet> {
        (any::<std::net::IpAddr>(), 0..=32_u8).prop_map(|(ip, len)| IpNet::new_assert(ip, len))
    }

    proptest! {
        #[test]
        fn what_the_operator_writes_is_what_the_data_plane_reads(
            forwards in prop::collection::vec(forward(), 1..20),
            sources in prop::collection::vec(source(), 0..5),
            probe_port in 1..=u16::MAX,
            data_path in prop::sample::select(&[DataPath::Kernel, DataPath::Userspace][..]),
            proxy_protocol in prop::option::of(any_proxy_protocol()),
        ) {
            let args = ProxyArgs { forwards, sources, probe_port, data_path, proxy_protocol };
            let line = std::iter::once("akrobateo-lb".to_owned()).chain(args.to_args());
            prop_assert_eq!(Cli::try_parse_from(line).map(|cli| cli.proxy).ok(), Some(args));
        }
    }

    #[test]
    fn what_existing_proxies_were_told_stays_the_same() {
        let line = ["akrobateo-lb", "--forward=tcp/80=10.0.0.1:80", "--probe-port=10290"];
        let args = Cli::try_parse_from(line).unwrap().proxy;
        assert_eq!(args, ProxyArgs::new(vec!["tcp/80=10.0.0.1:80".parse().unwrap()]));
        assert_eq!(args.to_args(), line[1..]);
    }

    #[test]
    fn a_proxy_without_a_port_is_refused() {
        assert!(Cli::try_parse_from(["akrobateo-lb"]).is_err());
    }
}

//! The arguments of the data plane: written by the operator, read by `akrobateo-lb`.

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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyArgs {
    /// What to forward; at least one.
    pub forwards: Vec<Forward>,
    /// Who is let in; everybody, if there are none.
    pub sources: Vec<IpNet>,
    /// Where the readiness probe is answered.
    pub probe_port: u16,
    /// Where to forward.
    pub data_path: DataPath,
    /// How backends are told the client's address, if they are.
    pub proxy_protocol: Option<ProxyProtocol>,
}

/// An option of the data plane, as its help and the reference tell of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyOption {
    /// Its name, without dashes.
    pub name: &'static str,
    /// What its value looks like.
    pub value: &'static str,
    /// Its value where none is given.
    pub default: Option<String>,
    /// What it does.
    pub help: &'static str,
}

/// All options of the data plane.
#[must_use]
pub fn options() -> [ProxyOption; 5] {
    let option = |name, value, help| ProxyOption { name, value, default: None, help };
    [
        option(
            "forward",
            "PROTOCOL/PORT=ADDRESS:PORT",
            "Forward a port, for example tcp/80=10.96.3.7:80; once per port and family",
        ),
        option(
            "source",
            "CIDR",
            "Let only these clients in, for example 10.0.0.0/8; may be repeated. Without it, everybody; with it, \
             nobody of a family of which no range is given",
        ),
        ProxyOption {
            default: Some(probe::PREFERRED_PORT.to_string()),
            ..option(
                "probe-port",
                "PORT",
                "TCP port inside the pod that answers the readiness probe; must not be a forwarded one",
            )
        },
        ProxyOption {
            default: Some(DataPath::default().to_string()),
            ..option(
                "data-path",
                "kernel|userspace",
                "Where to forward: kernel by nftables, or userspace, which needs no capability",
            )
        },
        option(
            "proxy-protocol",
            "v1|v2[:PORT,PORT...]",
            "Tell backends the client's address by the PROXY protocol, on all TCP ports or on some; only with \
             --data-path userspace",
        ),
    ]
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

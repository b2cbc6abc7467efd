//! The arguments of the data plane: the operator writes them, `akrobateo-lb` reads them. Pure.

use ipnet::IpNet;

use crate::data_path::DataPath;
use crate::forward::Forward;
use crate::probe;
use crate::proxy_protocol::ProxyProtocol;

/// The argument that makes `akrobateo-lb` enable IPv6 forwarding and exit. A privileged init container uses this
/// argument.
pub const ENABLE_IPV6_FORWARDING_COMMAND: &str = "enable-ipv6-forwarding";

/// The argument that makes `akrobateo-lb` do nothing until SIGTERM. A pod that only reserves its hostPorts uses this
/// argument.
pub const RESERVE_PORTS_COMMAND: &str = "reserve";

/// The whole configuration of a proxy pod. The pod's arguments contain the configuration, so that `kubectl describe
/// pod` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyArgs {
    /// The forwarded ports. The list has at least one entry.
    pub forwards: Vec<Forward>,
    /// The client addresses that may connect. If the list is empty, all clients may connect.
    pub sources: Vec<IpNet>,
    /// The TCP port of the readiness probe.
    pub probe_port: u16,
    /// The data path.
    pub data_path: DataPath,
    /// The PROXY protocol towards backends, if any.
    pub proxy_protocol: Option<ProxyProtocol>,
}

/// An option of the data plane, for its `--help` and the reference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyOption {
    /// The name, without the leading dashes.
    pub name: &'static str,
    /// The form of the value, for example `PORT`.
    pub value_form: &'static str,
    /// The default value, if there is one.
    pub default: Option<String>,
    /// The description.
    pub help: &'static str,
}

/// Returns all options of the data plane.
#[must_use]
pub fn options() -> [ProxyOption; 5] {
    let option = |name, value_form, help| ProxyOption { name, value_form, default: None, help };
    [
        option(
            "forward",
            "PROTOCOL/PORT=ADDRESS:PORT",
            "Port to forward, for example tcp/80=10.96.3.7:80; repeat the flag for each port and address family",
        ),
        option(
            "source",
            "CIDR",
            "Range of client addresses to allow, for example 10.0.0.0/8; may be repeated. Without ranges all clients \
             are allowed. With ranges, clients outside all ranges are denied; for dual-stack Services list ranges of \
             both families",
        ),
        ProxyOption {
            default: Some(probe::PREFERRED_PROBE_PORT.to_string()),
            ..option(
                "probe-port",
                "PORT",
                "TCP port of the readiness probe and the metrics; must not be a forwarded port",
            )
        },
        ProxyOption {
            default: Some(DataPath::default().to_string()),
            ..option(
                "data-path",
                "kernel|userspace",
                "Data path: kernel (nftables, needs NET_ADMIN), or userspace (needs no capability)",
            )
        },
        option(
            "proxy-protocol",
            "v1|v2[:PORT,PORT...]",
            "Send backends the client's address with the PROXY protocol, on all TCP ports or on the listed ones; \
             needs --data-path userspace",
        ),
    ]
}

impl ProxyArgs {
    /// Returns a configuration that forwards these ports for all clients. All other arguments have their default
    /// values.
    #[must_use]
    pub fn new(forwards: Vec<Forward>) -> Self {
        let (sources, probe_port, data_path) = (Vec::new(), probe::PREFERRED_PROBE_PORT, DataPath::default());
        Self { forwards, sources, probe_port, data_path, proxy_protocol: None }
    }

    /// Returns the arguments as the data plane parses them.
    ///
    /// A data path or PROXY protocol with the default value has no argument. The pod template therefore stays the same
    /// as in earlier versions, and an update of the operator does not replace proxies.
    #[must_use]
    pub fn to_args(&self) -> Vec<String> {
        let Self { forwards, sources, probe_port, data_path, proxy_protocol } = self;
        let forwards = forwards.iter().map(|forward| format!("--forward={forward}"));
        let sources = sources.iter().map(|source| format!("--source={source}"));
        let data_path = (*data_path != DataPath::default()).then(|| format!("--data-path={data_path}"));
        let proxy_protocol = proxy_protocol.as_ref().map(|protocol| format!("--proxy-protocol={protocol}"));
        let required_args = forwards.chain(sources).chain([format!("--probe-port={probe_port}")]);
        required_args.chain(data_path).chain(proxy_protocol).collect()
    }
}

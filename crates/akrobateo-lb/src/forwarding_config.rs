//! The forwarding configuration: the checked arguments, which both data paths use. Pure.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;

use akrobateo_core::{DataPath, Family, Forward, Frontend, Protocol, ProxyArgs, ProxyProtocol, ProxyVersion};

use crate::source_ranges::SourceRanges;

/// The ports that a proxy forwards, and the settings for them. The ports and settings do not contradict each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForwardingConfig {
    /// The frontends, sorted by family, protocol and port, each with its target. No frontend is listed twice.
    forwards: Vec<(Frontend, SocketAddr)>,
    sources: Option<SourceRanges>,
    proxy_protocol: Option<ProxyProtocol>,
}

/// The reason why the arguments are not a valid configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Two targets for one frontend.
    #[error(
        "--forward {0} and --forward {1} contradict each other: a port has one target per protocol and address \
         family; remove one of them"
    )]
    TwoTargets(Forward, Forward),
    /// A target to which the proxy cannot forward.
    #[error(
        "--forward {0}: the target must be the address of another host or pod, not a loopback, multicast, \
         broadcast, IPv6 link-local or IPv4-mapped address"
    )]
    InvalidTarget(Forward),
    /// The probe's port is forwarded, so the Service would answer the probes.
    #[error("--probe-port {0} is also a forwarded TCP port; choose a port that is not forwarded")]
    ProbePortForwarded(u16),
    /// The probe port is 0, which is not a valid port.
    #[error("--probe-port 0 is not a port; choose a number from 1 to 65535")]
    ProbePortZero,
    /// The kernel path cannot add a PROXY header to a connection.
    #[error(
        "--proxy-protocol {0}: this option needs --data-path userspace, because the kernel data path cannot add a \
         header"
    )]
    ProxyProtocolInKernel(ProxyProtocol),
    /// The option `--proxy-protocol` lists a port that is not a forwarded TCP port.
    #[error(
        "--proxy-protocol {0}: {1} is not a forwarded TCP port; add a --forward for this port, or remove the port \
         from --proxy-protocol"
    )]
    ProxyProtocolPortNotForwarded(ProxyProtocol, NonZeroU16),
    /// The userspace path cannot forward SCTP.
    #[error(
        "--forward {0}: --data-path userspace forwards tcp and udp only; use --data-path kernel for sctp"
    )]
    SctpInUserspace(Forward),
}

impl ForwardingConfig {
    /// Checks the arguments.
    pub fn new(args: ProxyArgs) -> Result<Self, ConfigError> {
        let ProxyArgs { forwards, sources, probe_port, data_path, proxy_protocol } = args;
        if probe_port == 0 {
            return Err(ConfigError::ProbePortZero);
        }
        let check = |forward| check_forward(forward, probe_port, data_path);
        let mut forwards = forwards.into_iter().map(check).collect::<Result<Vec<_>, _>>()?;
        forwards.sort_unstable();
        forwards.dedup();
        if let Some([first, second]) = forwards.array_windows().find(|[first, second]| first.0 == second.0) {
            return Err(ConfigError::TwoTargets(to_forward(*first), to_forward(*second)));
        }
        if let Some(proxy_protocol) = &proxy_protocol {
            check_proxy_protocol(proxy_protocol, data_path, &forwards)?;
        }
        let sources = (!sources.is_empty()).then(|| SourceRanges::new(&sources));
        Ok(Self { forwards, sources, proxy_protocol })
    }

    /// Returns the forwarded ports of one family, sorted by protocol and port, each with its target.
    pub fn forwards(&self, family: Family) -> impl Iterator<Item = (Protocol, NonZeroU16, SocketAddr)> {
        let forwards = self.forwards.iter().filter(move |(frontend, _)| frontend.family == family);
        forwards.map(|(frontend, target)| (frontend.protocol, frontend.port, *target))
    }

    /// Returns true if a port of this family is forwarded.
    #[must_use]
    pub fn has_forwards(&self, family: Family) -> bool {
        self.forwards(family).next().is_some()
    }

    /// Returns the frontends, sorted by family, protocol and port.
    #[must_use]
    pub fn frontends(&self) -> impl ExactSizeIterator<Item = Frontend> {
        self.forwards.iter().map(|(frontend, _)| *frontend)
    }

    /// Returns the target of a frontend.
    #[must_use]
    pub fn target(&self, frontend: Frontend) -> Option<SocketAddr> {
        let index = self.forwards.binary_search_by_key(&frontend, |(frontend, _)| *frontend).ok()?;
        self.forwards.get(index).map(|(_, target)| *target)
    }

    /// Returns the version of the PROXY protocol that the target of this TCP port expects, or `None` if the target does
    /// not expect a header.
    #[must_use]
    pub fn proxy_protocol_for(&self, port: NonZeroU16) -> Option<ProxyVersion> {
        self.proxy_protocol.as_ref()?.version_for_port(port)
    }

    /// Returns the source ranges, or `None` if all clients may connect.
    #[must_use]
    pub fn sources(&self) -> Option<&SourceRanges> {
        self.sources.as_ref()
    }

    /// Returns true if a client with this address may connect.
    #[must_use]
    pub fn allows(&self, client: IpAddr) -> bool {
        self.sources.as_ref().is_none_or(|sources| sources.allows(client))
    }
}

fn to_forward((frontend, target): (Frontend, SocketAddr)) -> Forward {
    Forward { protocol: frontend.protocol, port: frontend.port, target }
}

/// Checks one `--forward` against the probe port and the data path. Does not compare this `--forward` with the others.
fn check_forward(
    forward: Forward,
    probe_port: u16,
    data_path: DataPath,
) -> Result<(Frontend, SocketAddr), ConfigError> {
    let Forward { protocol, port, target } = forward;
    if !is_routable(target.ip()) {
        return Err(ConfigError::InvalidTarget(forward));
    }
    if protocol == Protocol::Tcp && port.get() == probe_port {
        return Err(ConfigError::ProbePortForwarded(probe_port));
    }
    if protocol == Protocol::Sctp && data_path == DataPath::Userspace {
        return Err(ConfigError::SctpInUserspace(forward));
    }
    Ok((Frontend { family: Family::from_ip(target.ip()), protocol, port }, target))
}

/// Checks that the data path supports the PROXY protocol. Also checks that each port in `--proxy-protocol` is a
/// forwarded TCP port.
fn check_proxy_protocol(
    proxy_protocol: &ProxyProtocol,
    data_path: DataPath,
    forwards: &[(Frontend, SocketAddr)],
) -> Result<(), ConfigError> {
    if data_path != DataPath::Userspace {
        return Err(ConfigError::ProxyProtocolInKernel(proxy_protocol.clone()));
    }
    let is_forwarded = |port| {
        forwards.iter().any(|(frontend, _)| frontend.protocol == Protocol::Tcp && frontend.port == port)
    };
    match proxy_protocol.listed_ports().find(|port| !is_forwarded(*port)) {
        Some(port) => Err(ConfigError::ProxyProtocolPortNotForwarded(proxy_protocol.clone(), port)),
        None => Ok(()),
    }
}

/// Returns true if the proxy can forward to this address.
fn is_routable(ip: IpAddr) -> bool {
    let is_routable_in_family = match ip {
        IpAddr::V4(ip) => !ip.is_broadcast(),
        IpAddr::V6(ip) => !ip.is_unicast_link_local() && ip.to_ipv4_mapped().is_none(),
    };
    is_routable_in_family && !ip.is_unspecified() && !ip.is_loopback() && !ip.is_multicast()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn build_config(forwards: &[&str], probe_port: u16) -> Result<ForwardingConfig, ConfigError> {
        let forwards = forwards.iter().map(|text| text.parse().unwrap()).collect();
        ForwardingConfig::new(ProxyArgs { probe_port, ..ProxyArgs::new(forwards) })
    }

    #[test]
    fn port_number_has_one_target_per_protocol_and_family() {
        let forwards =
            ["tcp/53=10.0.0.1:53", "udp/53=10.0.0.2:53", "tcp/53=[fd00::1]:53", "udp/53=[fd00::2]:53"];
        let config = build_config(&forwards, 1024).unwrap();
        let frontend =
            Frontend { family: Family::V6, protocol: Protocol::Udp, port: NonZeroU16::new(53).unwrap() };
        assert_eq!(config.target(frontend), Some("[fd00::2]:53".parse().unwrap()));
        assert_eq!(config.forwards(Family::V4).count(), 2);
    }

    #[test]
    fn error_says_which_argument_is_invalid() {
        for (forwards, probe_port, expected) in [
            (
                &["tcp/80=10.0.0.1:80", "tcp/80=10.0.0.1:81"][..],
                1,
                "--forward tcp/80=10.0.0.1:80 and --forward",
            ),
            (&["tcp/80=127.0.0.1:80"], 1, "--forward tcp/80=127.0.0.1:80: the target"),
            (&["tcp/80=[fe80::1]:80"], 1, "the target"),
            (&["tcp/80=[::ffff:10.0.0.1]:80"], 1, "the target"),
            (&["udp/80=224.0.0.1:80"], 1, "the target"),
            (&["udp/80=255.255.255.255:80"], 1, "the target"),
            (&["tcp/80=10.0.0.1:80"], 80, "--probe-port 80"),
            (&["tcp/80=10.0.0.1:80"], 0, "--probe-port 0"),
        ] {
            let error = build_config(forwards, probe_port).unwrap_err().to_string();
            assert!(error.contains(expected), "{forwards:?}: {error}");
        }
    }

    #[test]
    fn repeated_forward_is_accepted() {
        assert!(build_config(&["tcp/80=10.0.0.1:80", "tcp/80=10.0.0.1:80"], 1).is_ok());
    }

    #[test]
    fn udp_port_may_equal_the_probe_port() {
        assert!(build_config(&["udp/80=10.0.0.1:80"], 80).is_ok());
    }

    fn build_userspace_config(
        forwards: &[&str],
        proxy_protocol: &str,
    ) -> Result<ForwardingConfig, ConfigError> {
        let forwards = forwards.iter().map(|text| text.parse().unwrap()).collect();
        ForwardingConfig::new(ProxyArgs {
            data_path: DataPath::Userspace,
            proxy_protocol: Some(proxy_protocol.parse().unwrap()),
            ..ProxyArgs::new(forwards)
        })
    }

    #[test]
    fn proxy_protocol_is_accepted_only_for_tcp_ports_of_the_userspace_path() {
        let forwards = ["tcp/80=10.0.0.1:80", "tcp/443=10.0.0.1:443", "udp/53=10.0.0.1:53"];
        let config = build_userspace_config(&forwards, "v2:443").unwrap();
        let proxy_version = |port| config.proxy_protocol_for(NonZeroU16::new(port).unwrap());
        assert_eq!((proxy_version(80), proxy_version(443)), (None, Some(ProxyVersion::V2)));
        let error = build_userspace_config(&forwards, "v2:53,443").unwrap_err().to_string();
        assert!(error.starts_with("--proxy-protocol v2:53,443: 53 is not a forwarded TCP port"), "{error}");
        let error = build_userspace_config(&["sctp/80=10.0.0.1:80"], "v1").unwrap_err().to_string();
        assert!(error.contains("tcp and udp only"), "{error}");
        let forwards = vec!["tcp/80=10.0.0.1:80".parse().unwrap()];
        let proxy_protocol = Some("v1".parse().unwrap());
        let error = ForwardingConfig::new(ProxyArgs { proxy_protocol, ..ProxyArgs::new(forwards) })
            .unwrap_err()
            .to_string();
        assert!(error.starts_with("--proxy-protocol v1: this option needs --data-path userspace"), "{error}");
    }

    fn any_forward() -> impl Strategy<Value = Forward> {
        let protocol = prop::sample::select(&Protocol::ALL[..]);
        let ip = prop_oneof![Just("10.0.0.1".parse::<IpAddr>().unwrap()), Just("fd00::1".parse().unwrap())];
        (protocol, 1..4_u16, ip, 1..3_u16).prop_map(|(protocol, port, ip, target_port)| Forward {
            protocol,
            port: port.try_into().unwrap(),
            target: (ip, target_port).into(),
        })
    }

    fn to_frontend(forward: &Forward) -> Frontend {
        let Forward { protocol, port, target } = *forward;
        Frontend { family: Family::from_ip(target.ip()), protocol, port }
    }

    proptest! {
        #[test]
        fn config_has_every_forward_if_all_forwards_are_valid(
            forwards in prop::collection::vec(any_forward(), 1..6),
            probe_port in 0..4_u16,
        ) {
            let args = ProxyArgs { probe_port, ..ProxyArgs::new(forwards.clone()) };
            let has_two_targets = forwards.iter().any(|first| {
                forwards.iter().any(|second| to_frontend(first) == to_frontend(second) && first.target != second.target)
            });
            let forwards_probe_port = forwards
                .iter()
                .any(|forward| forward.protocol == Protocol::Tcp && forward.port.get() == probe_port);
            match ForwardingConfig::new(args) {
                Err(_) => prop_assert!(has_two_targets || forwards_probe_port || probe_port == 0),
                Ok(config) => {
                    prop_assert!(!has_two_targets && !forwards_probe_port && probe_port != 0);
                    for forward in &forwards {
                        prop_assert_eq!(config.target(to_frontend(forward)), Some(forward.target));
                    }
                }
            }
        }
    }
}

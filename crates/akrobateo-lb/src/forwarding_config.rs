//! What the arguments ask for, checked: the type that the rules and the clean-up of flows are made from. Pure.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;

use akrobateo_core::{DataPath, Family, Forward, Protocol, ProxyArgs, ProxyProtocol, ProxyVersion};

use crate::sources::Sources;

/// What a client addresses: family, protocol and port.
pub type Frontend = (Family, Protocol, NonZeroU16);

/// Everything that a proxy does, without contradiction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForwardingConfig {
    /// Sorted, each port once.
    forwards: Vec<(Frontend, SocketAddr)>,
    sources: Option<Sources>,
    proxy_protocol: Option<ProxyProtocol>,
}

/// Why the arguments make no plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// One port, two targets.
    #[error("--forward {0} and --forward {1}: a port has one target per protocol and address family")]
    Contradiction(Forward, Forward),
    /// A target to which packets from elsewhere can't be sent.
    #[error(
        "--forward {0}: the target must be an address of another machine or pod, not a loopback, multicast, \
             broadcast, IPv6 link-local or IPv4-mapped one"
    )]
    Target(Forward),
    /// The probe's port is forwarded, so that its answers would come from the Service.
    #[error("--probe-port {0} is also a forwarded TCP port: it must be another one")]
    ProbeForwarded(u16),
    /// Port 0.
    #[error("--probe-port 0: it must be a number from 1 to 65535")]
    ProbeZero,
    /// Rules cannot put anything into a connection.
    #[error("--proxy-protocol {0}: it needs --data-path userspace")]
    ProxyProtocolInKernel(ProxyProtocol),
    /// A port that would have the PROXY protocol, but is not forwarded.
    #[error("--proxy-protocol {0}: {1} is not a forwarded TCP port")]
    ProxyProtocolPort(ProxyProtocol, NonZeroU16),
    /// SCTP without the kernel's rules.
    #[error("--forward {0}: --data-path userspace forwards tcp and udp only")]
    SctpInUserspace(Forward),
}

impl ForwardingConfig {
    /// Checks the arguments.
    pub fn new(args: ProxyArgs) -> Result<Self, ConfigError> {
        let ProxyArgs { forwards, sources, probe_port, data_path, proxy_protocol } = args;
        if probe_port == 0 {
            return Err(ConfigError::ProbeZero);
        }
        let check = |forward| check(forward, probe_port, data_path);
        let mut checked = forwards.into_iter().map(check).collect::<Result<Vec<_>, _>>()?;
        checked.sort_unstable();
        checked.dedup();
        if let Some(two) = checked.windows(2).find(|two| two[0].0 == two[1].0) {
            let forward = |((_, protocol, port), target)| Forward { protocol, port, target };
            return Err(ConfigError::Contradiction(forward(two[0]), forward(two[1])));
        }
        if let Some(asked) = &proxy_protocol {
            check_proxy_protocol(asked, data_path, &checked)?;
        }
        let sources = (!sources.is_empty()).then(|| Sources::new(&sources));
        Ok(Self { forwards: checked, sources, proxy_protocol })
    }

    /// The forwarded ports of one family, in order, each with its target.
    pub fn forwards(&self, family: Family) -> impl Iterator<Item = (Protocol, NonZeroU16, SocketAddr)> {
        let of_family = self.forwards.iter().filter(move |((of, ..), _)| *of == family);
        of_family.map(|((_, protocol, port), target)| (*protocol, *port, *target))
    }

    /// What clients can address, in order.
    pub fn frontends(&self) -> impl Iterator<Item = Frontend> {
        self.forwards.iter().map(|(listen, _)| *listen)
    }

    /// Where a client that addresses `listen` ends up.
    #[must_use]
    pub fn target(&self, listen: Frontend) -> Option<SocketAddr> {
        let at = self.forwards.binary_search_by_key(&listen, |(one, _)| *one).ok()?;
        Some(self.forwards.get(at)?.1)
    }

    /// The PROXY protocol by which connections to this TCP port are proxy_protocol_for to the target, if they are.
    #[must_use]
    pub fn proxy_protocol_for(&self, port: NonZeroU16) -> Option<ProxyVersion> {
        self.proxy_protocol.as_ref()?.version_on(port)
    }

    /// The clients that are let in; `None` for everybody.
    #[must_use]
    pub fn sources(&self) -> Option<&Sources> {
        self.sources.as_ref()
    }

    /// Whether a client with this address is let in.
    #[must_use]
    pub fn allows(&self, client: IpAddr) -> bool {
        self.sources.as_ref().is_none_or(|sources| sources.allow(client))
    }
}

/// Whether a forward makes sense by itself.
fn check(forward: Forward, probe_port: u16, path: DataPath) -> Result<(Frontend, SocketAddr), ConfigError> {
    let Forward { protocol, port, target } = forward;
    if !reachable(target.ip()) {
        return Err(ConfigError::Target(forward));
    }
    if protocol == Protocol::Tcp && port.get() == probe_port {
        return Err(ConfigError::ProbeForwarded(probe_port));
    }
    if protocol == Protocol::Sctp && path == DataPath::Userspace {
        return Err(ConfigError::SctpInUserspace(forward));
    }
    Ok(((Family::from_ip(target.ip()), protocol, port), target))
}

/// Whether the PROXY protocol can be had on this path, for these ports.
fn check_proxy_protocol(
    asked: &ProxyProtocol,
    path: DataPath,
    forwards: &[(Frontend, SocketAddr)],
) -> Result<(), ConfigError> {
    if path != DataPath::Userspace {
        return Err(ConfigError::ProxyProtocolInKernel(asked.clone()));
    }
    let forwarded =
        |port| forwards.iter().any(|((_, protocol, of), _)| (*protocol, *of) == (Protocol::Tcp, port));
    match asked.listed_ports().find(|port| !forwarded(*port)) {
        Some(port) => Err(ConfigError::ProxyProtocolPort(asked.clone(), port)),
        None => Ok(()),
    }
}

/// Whether DNAT can send packets from other machines there.
fn reachable(ip: IpAddr) -> bool {
    let outside = match ip {
        IpAddr::V4(ip) => !ip.is_broadcast(),
        IpAddr::V6(ip) => !ip.is_unicast_link_local() && ip.to_ipv4_mapped().is_none(),
    };
    outside && !ip.is_unspecified() && !ip.is_loopback() && !ip.is_multicast()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn plan(forwards: &[&str], probe_port: u16) -> Result<ForwardingConfig, ConfigError> {
        let forwards = forwards.iter().map(|text| text.parse().unwrap()).collect();
        ForwardingConfig::new(ProxyArgs { probe_port, ..ProxyArgs::new(forwards) })
    }

    #[test]
    fn one_number_serves_both_protocols_and_both_families() {
        let all = ["tcp/53=10.0.0.1:53", "udp/53=10.0.0.2:53", "tcp/53=[fd00::1]:53", "udp/53=[fd00::2]:53"];
        let plan = plan(&all, 1024).unwrap();
        let listen = (Family::V6, Protocol::Udp, NonZeroU16::new(53).unwrap());
        assert_eq!(plan.target(listen), Some("[fd00::2]:53".parse().unwrap()));
        assert_eq!(plan.forwards(Family::V4).count(), 2);
    }

    #[test]
    fn what_is_wrong_names_the_argument() {
        for (forwards, probe_port, wrong) in [
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
            let error = plan(forwards, probe_port).unwrap_err().to_string();
            assert!(error.contains(wrong), "{forwards:?}: {error}");
        }
    }

    #[test]
    fn saying_the_same_twice_is_no_contradiction() {
        assert!(plan(&["tcp/80=10.0.0.1:80", "tcp/80=10.0.0.1:80"], 1).is_ok());
        assert!(plan(&["udp/80=10.0.0.1:80"], 80).is_ok(), "the probe is TCP");
    }

    fn in_userspace(forwards: &[&str], proxy_protocol: &str) -> Result<ForwardingConfig, ConfigError> {
        let forwards = forwards.iter().map(|text| text.parse().unwrap()).collect();
        ForwardingConfig::new(ProxyArgs {
            data_path: DataPath::Userspace,
            proxy_protocol: Some(proxy_protocol.parse().unwrap()),
            ..ProxyArgs::new(forwards)
        })
    }

    #[test]
    fn the_proxy_protocol_is_for_tcp_in_userspace() {
        let forwards = ["tcp/80=10.0.0.1:80", "tcp/443=10.0.0.1:443", "udp/53=10.0.0.1:53"];
        let plan = in_userspace(&forwards, "v2:443").unwrap();
        let proxy_protocol_for = |port| plan.proxy_protocol_for(NonZeroU16::new(port).unwrap());
        assert_eq!((proxy_protocol_for(80), proxy_protocol_for(443)), (None, Some(ProxyVersion::V2)));
        let error = in_userspace(&forwards, "v2:53,443").unwrap_err().to_string();
        assert_eq!(error, "--proxy-protocol v2:53,443: 53 is not a forwarded TCP port");
        let error = in_userspace(&["sctp/80=10.0.0.1:80"], "v1").unwrap_err().to_string();
        assert!(error.contains("tcp and udp only"), "{error}");
        let forwards = vec!["tcp/80=10.0.0.1:80".parse().unwrap()];
        let proxy_protocol = Some("v1".parse().unwrap());
        let error = ForwardingConfig::new(ProxyArgs { proxy_protocol, ..ProxyArgs::new(forwards) })
            .unwrap_err()
            .to_string();
        assert_eq!(error, "--proxy-protocol v1: it needs --data-path userspace");
    }

    fn forward() -> impl Strategy<Value = Forward> {
        let protocol = prop::sample::select(&Protocol::ALL[..]);
        let ip = prop_oneof![Just("10.0.0.1".parse::<IpAddr>().unwrap()), Just("fd00::1".parse().unwrap())];
        (protocol, 1..4_u16, ip, 1..3_u16).prop_map(|(protocol, port, ip, to)| Forward {
            protocol,
            port: port.try_into().unwrap(),
            target: (ip, to).into(),
        })
    }

    proptest! {
        #[test]
        fn a_plan_does_what_every_argument_says_or_is_refused(
            forwards in prop::collection::vec(forward(), 1..6),
            probe_port in 0..4_u16,
        ) {
            let args = ProxyArgs { probe_port, ..ProxyArgs::new(forwards.clone()) };
            let listen = |forward: &Forward| (Family::from_ip(forward.target.ip()), forward.protocol, forward.port);
            let contradiction = forwards.iter().any(|one| {
                forwards.iter().any(|two| listen(one) == listen(two) && one.target != two.target)
            });
            let taken = forwards.iter().any(|one| one.protocol == Protocol::Tcp && one.port.get() == probe_port);
            match ForwardingConfig::new(args) {
                Err(_) => prop_assert!(contradiction || taken || probe_port == 0),
                Ok(plan) => {
                    prop_assert!(!contradiction && !taken && probe_port != 0);
                    for forward in &forwards {
                        prop_assert_eq!(plan.target(listen(forward)), Some(forward.target));
                    }
                }
            }
        }
    }
}

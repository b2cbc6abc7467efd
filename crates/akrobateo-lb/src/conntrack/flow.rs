//! A flow as the kernel lists it, and whether the plan decides it otherwise than it was decided. Pure.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;

use contract::Protocol;

use crate::netlink::Attr;
use crate::plan::{Family, Plan};
use crate::ruleset;

/// enum `ctattr_type` (`linux/netfilter/nfnetlink_conntrack.h`).
pub(super) const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;
pub(super) const ID: u16 = 12;
/// enum `ctattr_tuple`.
const TUPLE_IP: u16 = 1;
const TUPLE_PROTO: u16 = 2;
/// enum `ctattr_ip`.
const IP_V4_SOURCE: u16 = 1;
const IP_V6_SOURCE: u16 = 3;
/// enum `ctattr_l4proto`.
const PROTO_NUMBER: u16 = 1;
const PROTO_SOURCE_PORT: u16 = 2;
const PROTO_TARGET_PORT: u16 = 3;

/// A tracked flow of a protocol that can be forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Flow {
    protocol: Protocol,
    client: SocketAddr,
    /// What the client addressed.
    addressed: SocketAddr,
    /// What answers: another address where the flow is forwarded.
    answering: SocketAddr,
}

impl Flow {
    /// Reads the attributes of a listed flow; `None` for other protocols.
    pub(super) fn read(attrs: &[u8]) -> Option<Self> {
        let (protocol, client, addressed) = tuple(Attr::find(attrs, TUPLE_ORIGINAL)?)?;
        let (_, answering, _) = tuple(Attr::find(attrs, TUPLE_REPLY)?)?;
        Some(Self { protocol, client, addressed, answering })
    }

    /// Whether it must end, because a new one like it would be decided otherwise.
    ///
    /// A TCP connection goes on with the target that it has, as it does with any load balancer.
    pub(super) fn is_stale(&self, plan: &Plan) -> bool {
        let port = NonZeroU16::new(self.addressed.port());
        let target =
            port.and_then(|port| plan.target((Family::of(self.addressed.ip()), self.protocol, port)));
        let forwarded = self.answering != self.addressed;
        if !forwarded && target.is_none() {
            return false;
        }
        let refused = !plan.allows(self.client.ip());
        let elsewhere = target.unwrap_or(self.addressed) != self.answering;
        refused || (elsewhere && self.protocol == Protocol::Udp)
    }
}

/// Protocol, source and target of one direction.
fn tuple(attrs: &[u8]) -> Option<(Protocol, SocketAddr, SocketAddr)> {
    let proto = Attr::find(attrs, TUPLE_PROTO)?;
    let number = Attr::find(proto, PROTO_NUMBER)?.first()?;
    let protocol = Protocol::ALL.into_iter().find(|protocol| ruleset::number(*protocol) == *number)?;
    let port = |kind| Some(u16::from_be_bytes(*Attr::find(proto, kind)?.first_chunk()?));
    let ip = Attr::find(attrs, TUPLE_IP)?;
    let (source, target) = match Attr::find(ip, IP_V4_SOURCE) {
        Some(source) => (address::<4>(source)?, address::<4>(Attr::find(ip, IP_V4_SOURCE + 1)?)?),
        None => {
            (address::<16>(Attr::find(ip, IP_V6_SOURCE)?)?, address::<16>(Attr::find(ip, IP_V6_SOURCE + 1)?)?)
        }
    };
    Some((
        protocol,
        SocketAddr::new(source, port(PROTO_SOURCE_PORT)?),
        SocketAddr::new(target, port(PROTO_TARGET_PORT)?),
    ))
}

fn address<const LEN: usize>(bytes: &[u8]) -> Option<IpAddr>
where
    IpAddr: From<[u8; LEN]>,
{
    Some(IpAddr::from(<[u8; LEN]>::try_from(bytes).ok()?))
}

#[cfg(test)]
mod tests {
    use contract::ProxyArgs;
    use proptest::prelude::*;

    use super::*;
    use crate::netlink::Attrs;

    fn plan(sources: &[&str]) -> Plan {
        let forwards = ["tcp/80=10.96.0.1:8080", "udp/53=10.96.0.1:53"].map(|text| text.parse().unwrap());
        let sources = sources.iter().map(|text| text.parse().unwrap()).collect();
        Plan::new(ProxyArgs { sources, ..ProxyArgs::new(forwards.into()) }).unwrap()
    }

    proptest! {
        #[test]
        fn reading_ends_whatever_the_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Flow::read(&bytes);
        }

        #[test]
        fn a_flow_is_read_as_the_kernel_lists_it(
            protocol in prop::sample::select(&Protocol::ALL[..]),
            ips in prop_oneof![
                any::<[[u8; 4]; 3]>().prop_map(|ips| ips.map(IpAddr::from)),
                any::<[[u8; 16]; 3]>().prop_map(|ips| ips.map(IpAddr::from)),
            ],
            ports in any::<[u16; 3]>(),
        ) {
            let ends: [SocketAddr; 3] = std::array::from_fn(|at| (ips[at], ports[at]).into());
            let [client, addressed, answering] = ends;
            let mut bytes = Vec::new();
            let attrs = &mut Attrs(&mut bytes);
            write(attrs, TUPLE_ORIGINAL, protocol, client, addressed);
            write(attrs, TUPLE_REPLY, protocol, answering, client);
            prop_assert_eq!(Flow::read(&bytes), Some(Flow { protocol, client, addressed, answering }));
        }
    }

    fn write(attrs: &mut Attrs<'_>, kind: u16, protocol: Protocol, from: SocketAddr, to: SocketAddr) {
        attrs.nested(kind, |tuple| {
            tuple.nested(TUPLE_IP, |ip| {
                for (at, end) in (0..).zip([from, to]) {
                    match end.ip() {
                        IpAddr::V4(address) => ip.bytes(IP_V4_SOURCE + at, &address.octets()),
                        IpAddr::V6(address) => ip.bytes(IP_V6_SOURCE + at, &address.octets()),
                    }
                }
            });
            tuple.nested(TUPLE_PROTO, |proto| {
                proto.bytes(PROTO_NUMBER, &[ruleset::number(protocol)]);
                proto.bytes(PROTO_SOURCE_PORT, &from.port().to_be_bytes());
                proto.bytes(PROTO_TARGET_PORT, &to.port().to_be_bytes());
            });
        });
    }

    fn flow(protocol: Protocol, port: u16, answering: &str) -> Flow {
        Flow {
            protocol,
            client: "192.0.2.7:4000".parse().unwrap(),
            addressed: SocketAddr::from(([10, 244, 0, 5], port)),
            answering: answering.parse().unwrap(),
        }
    }

    #[test]
    fn udp_flows_follow_the_target_and_tcp_connections_stay() {
        let plan = plan(&[]);
        for (flow, stale) in [
            (flow(Protocol::Udp, 53, "10.96.0.1:53"), false),
            (flow(Protocol::Udp, 53, "10.96.0.2:53"), true),
            (flow(Protocol::Udp, 53, "10.244.0.5:53"), true),
            (flow(Protocol::Udp, 54, "10.96.0.1:54"), true),
            (flow(Protocol::Udp, 54, "10.244.0.5:54"), false),
            (flow(Protocol::Tcp, 80, "10.96.0.2:8080"), false),
            (flow(Protocol::Tcp, 1024, "10.244.0.5:1024"), false),
        ] {
            assert_eq!(flow.is_stale(&plan), stale, "{flow:?}");
        }
    }

    #[test]
    fn flows_of_clients_that_are_no_longer_let_in_end_and_the_probe_stays() {
        let plan = plan(&["198.51.100.0/24"]);
        assert!(flow(Protocol::Tcp, 80, "10.96.0.1:8080").is_stale(&plan));
        assert!(flow(Protocol::Udp, 53, "10.96.0.1:53").is_stale(&plan));
        assert!(!flow(Protocol::Tcp, 1024, "10.244.0.5:1024").is_stale(&plan));
    }
}

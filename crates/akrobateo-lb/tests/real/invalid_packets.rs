//! Packets that belong to no flow, or not any more.

use std::net::{Ipv4Addr, SocketAddr};

use rustix::net::{AddressFamily, SendFlags, SocketType, ipproto, sendto, socket};

use crate::harness::addr::{self, with_port};
use crate::harness::proxy::split_args;
use crate::harness::traffic::{REPLY_TIMEOUT, connect_tcp, serve_tcp};
use crate::harness::{Network, Proxy, isolated};

/// A TCP segment with only ACK set, far outside of any window.
fn stray(from: SocketAddr, to: SocketAddr) -> Vec<u8> {
    let mut segment = [from.port().to_be_bytes(), to.port().to_be_bytes()].concat();
    segment.extend(0x1234_5678_u32.to_be_bytes());
    segment.extend(0x8765_4321_u32.to_be_bytes());
    segment.extend([5 << 4, 0x10, 0x10, 0, 0, 0, 0, 0]);
    let octets = |address: SocketAddr| address.ip().to_string().parse::<Ipv4Addr>().unwrap().octets();
    let pseudo = [&octets(from)[..], &octets(to), &[0, 6, 0, 20], &segment].concat();
    let sum: u32 = pseudo.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let checksum = !u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap();
    segment[16..18].copy_from_slice(&checksum.to_be_bytes());
    segment
}

#[test]
fn a_stray_segment_is_not_answered_with_a_reset_that_would_break_the_connection() {
    isolated(|| {
        let network = Network::new();
        serve_tcp(&network.backend, &with_port(addr::BACKEND[0], 80));
        let _proxy = Proxy::start_ready(&network.pod, &split_args("--forward=tcp/80=10.96.3.7:80"));
        let to = with_port(addr::POD[0], 80);
        let mut connection = connect_tcp(&network.client, addr::CLIENT[0], &to, REPLY_TIMEOUT).unwrap();
        let resets = || network.pod.snmp_counter("Tcp", "OutRsts");
        let before = resets();
        network.client.run(|| {
            let raw = socket(AddressFamily::INET, SocketType::RAW, Some(ipproto::TCP)).unwrap();
            let target: SocketAddr = to.parse().unwrap();
            let segment = stray(connection.local_addr(), target);
            sendto(&raw, &segment, SendFlags::empty(), &target).unwrap();
        });
        connection.check_echo().unwrap();
        assert_eq!(resets(), before, "the pod sent a reset");
    });
}

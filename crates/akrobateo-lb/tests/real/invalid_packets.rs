//! Packets that belong to no flow.

use std::net::{Ipv4Addr, SocketAddr};

use rustix::net::{AddressFamily, SendFlags, SocketType, ipproto, sendto, socket};

use crate::harness::addr::{self, with_port};
use crate::harness::proxy::split_args;
use crate::harness::traffic::{REPLY_TIMEOUT, connect_tcp, serve_tcp};
use crate::harness::{Network, Proxy, isolated};

/// Returns a TCP segment that has only the ACK flag, and a sequence number outside the window.
fn build_out_of_window_segment(source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    let mut segment = [source.port().to_be_bytes(), destination.port().to_be_bytes()].concat();
    segment.extend(0x1234_5678_u32.to_be_bytes());
    segment.extend(0x8765_4321_u32.to_be_bytes());
    segment.extend([5 << 4, 0x10, 0x10, 0, 0, 0, 0, 0]);
    let octets = |address: SocketAddr| address.ip().to_string().parse::<Ipv4Addr>().unwrap().octets();
    let checksummed_bytes = [&octets(source)[..], &octets(destination), &[0, 6, 0, 20], &segment].concat();
    let sum: u32 =
        checksummed_bytes.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let folded_sum = (sum & 0xffff) + (sum >> 16);
    let checksum = !u16::try_from((folded_sum & 0xffff) + (folded_sum >> 16)).unwrap();
    segment[16..18].copy_from_slice(&checksum.to_be_bytes());
    segment
}

#[test]
fn out_of_window_segment_is_not_answered_with_a_reset() {
    isolated(|| {
        let network = Network::new();
        serve_tcp(&network.backend, &with_port(addr::BACKEND[0], 80));
        let _proxy = Proxy::start_and_wait(&network.pod, &split_args("--forward=tcp/80=10.96.3.7:80"));
        let pod_address = with_port(addr::POD[0], 80);
        let mut connection =
            connect_tcp(&network.client, addr::CLIENT[0], &pod_address, REPLY_TIMEOUT).unwrap();
        let count_sent_resets = || network.pod.snmp_counter("Tcp", "OutRsts");
        let resets_before = count_sent_resets();
        network.client.run(|| {
            let raw_socket = socket(AddressFamily::INET, SocketType::RAW, Some(ipproto::TCP)).unwrap();
            let destination: SocketAddr = pod_address.parse().unwrap();
            let segment = build_out_of_window_segment(connection.local_addr(), destination);
            sendto(&raw_socket, &segment, SendFlags::empty(), &destination).unwrap();
        });
        connection.check_echo().unwrap();
        assert_eq!(count_sent_resets(), resets_before, "the pod sent a reset");
    });
}

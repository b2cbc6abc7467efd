//! Unusual packets: packets above the MTU, fragments, ICMP errors and SCTP.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, UdpSocket};

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, ipproto, recv, sendto, socket, sockopt};

use crate::harness::addr::{self, with_port};
use crate::harness::proxy::split_args;
use crate::harness::traffic::{REPLY_TIMEOUT, UdpClient, open_tcp_stream, serve_udp};
use crate::harness::{Network, Proxy, isolated};

const FORWARDS: &str = "--forward=tcp/80=10.96.3.7:80 --forward=udp/80=10.96.3.7:80 \
     --forward=tcp/80=[fd00:96::7]:80 --forward=udp/80=[fd00:96::7]:80";

/// Accepts one connection and replies with the number of received bytes.
fn reply_with_received_byte_count(network: &Network, family_index: usize) {
    let address = with_port(addr::BACKEND[family_index], 80);
    let listener = network.backend.run(|| TcpListener::bind(address).unwrap());
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut received_bytes = Vec::new();
        stream.read_to_end(&mut received_bytes).unwrap();
        stream.write_all(received_bytes.len().to_string().as_bytes()).unwrap();
    });
}

#[test]
fn client_receives_the_icmp_error_for_a_smaller_mtu_on_the_backend_side() {
    isolated(|| {
        let network = Network::new();
        // Client and backend do not know this MTU, so only ICMP errors of the node can report this MTU.
        network.node.ip("link set backend mtu 1300");
        let _proxy = Proxy::start_and_wait(&network.pod, &split_args(FORWARDS));
        for family_index in 0..2 {
            reply_with_received_byte_count(&network, family_index);
            let destination = with_port(addr::POD[family_index], 80);
            let mut stream =
                open_tcp_stream(&network.client, addr::CLIENT[family_index], &destination, REPLY_TIMEOUT)
                    .unwrap();
            stream.write_all(&vec![7; 1 << 20]).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            let mut reply = String::new();
            stream.read_to_string(&mut reply).unwrap();
            assert_eq!(reply, (1 << 20).to_string());
        }
    });
}

#[test]
fn backend_receives_the_icmp_error_for_a_smaller_mtu_on_the_client_side() {
    isolated(|| {
        let network = Network::new();
        network.node.ip("link set client mtu 1300");
        let _proxy = Proxy::start_and_wait(&network.pod, &split_args(FORWARDS));
        for family_index in 0..2 {
            let backend = with_port(addr::BACKEND[family_index], 80);
            let listener = network.backend.run(|| TcpListener::bind(backend).unwrap());
            std::thread::spawn(move || listener.accept().unwrap().0.write_all(&vec![7; 1 << 20]).unwrap());
            let destination = with_port(addr::POD[family_index], 80);
            let mut stream =
                open_tcp_stream(&network.client, addr::CLIENT[family_index], &destination, REPLY_TIMEOUT)
                    .unwrap();
            let mut received_bytes = Vec::new();
            stream.read_to_end(&mut received_bytes).unwrap();
            assert_eq!(received_bytes.len(), 1 << 20);
        }
    });
}

#[test]
fn fragmented_datagrams_arrive_complete_in_both_directions() {
    isolated(|| {
        let network = Network::new();
        let _proxy = Proxy::start_and_wait(&network.pod, &split_args(FORWARDS));
        for family_index in 0..2 {
            let backend = with_port(addr::BACKEND[family_index], 80);
            let backend = network.backend.run(|| UdpSocket::bind(backend).unwrap());
            let client = with_port(addr::CLIENT[family_index], 0);
            let client = network.client.run(|| UdpSocket::bind(client).unwrap());
            for socket in [&backend, &client] {
                socket.set_read_timeout(Some(REPLY_TIMEOUT)).unwrap();
            }
            let sent_bytes: Vec<u8> = (0..20_000_u32).map(|number| (number % 251) as u8).collect();
            client.send_to(&sent_bytes, with_port(addr::POD[family_index], 80)).unwrap();
            let mut received_bytes = vec![0; 30_000];
            let (length, from) = backend.recv_from(&mut received_bytes).unwrap();
            assert_eq!(received_bytes[..length], sent_bytes);
            backend.send_to(&sent_bytes, from).unwrap();
            let (length, from) = client.recv_from(&mut received_bytes).unwrap();
            assert_eq!(received_bytes[..length], sent_bytes);
            assert_eq!(from.to_string(), with_port(addr::POD[family_index], 80));
        }
    });
}

#[test]
fn client_is_refused_if_the_target_does_not_listen() {
    isolated(|| {
        let network = Network::new();
        let _proxy = Proxy::start_and_wait(&network.pod, &split_args(FORWARDS));
        for family_index in 0..2 {
            let destination = with_port(addr::POD[family_index], 80);
            let result = UdpClient::new(&network.client, addr::CLIENT[family_index], &destination)
                .request(REPLY_TIMEOUT);
            assert_eq!(result.unwrap_err().kind(), ErrorKind::ConnectionRefused);
            let result =
                open_tcp_stream(&network.client, addr::CLIENT[family_index], &destination, REPLY_TIMEOUT);
            assert_eq!(result.unwrap_err().kind(), ErrorKind::ConnectionRefused);
        }
        // The same request succeeds when the backend listens.
        serve_udp(&network.backend, &with_port(addr::BACKEND[0], 80));
        UdpClient::new(&network.client, addr::CLIENT[0], &with_port(addr::POD[0], 80))
            .request(REPLY_TIMEOUT)
            .unwrap();
    });
}

/// Computes CRC-32C (RFC 9260, appendix A).
fn crc32c(bytes: &[u8]) -> u32 {
    let shift = |crc: u32| if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
    !bytes.iter().fold(u32::MAX, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| shift(crc)))
}

/// Returns an SCTP packet with an INIT chunk (RFC 9260, section 3.3.2).
fn build_sctp_init_packet(source_port: u16, destination_port: u16) -> Vec<u8> {
    let mut packet = [source_port.to_be_bytes(), destination_port.to_be_bytes()].concat();
    packet.extend([0; 8]);
    packet.extend([1, 0, 0, 20]);
    packet.extend(0x1234_5678_u32.to_be_bytes());
    packet.extend(65_536_u32.to_be_bytes());
    packet.extend([0, 1, 0, 1]);
    packet.extend(1_u32.to_be_bytes());
    let checksum = crc32c(&packet).to_le_bytes();
    packet[8..12].copy_from_slice(&checksum);
    packet
}

/// Uses raw sockets, because few kernels have SCTP sockets. Forwarding does not need SCTP sockets.
#[test]
fn sctp_is_forwarded_to_the_target() {
    isolated(|| {
        let network = Network::new();
        let _proxy = Proxy::start_and_wait(&network.pod, &split_args("--forward=sctp/36412=10.96.3.7:38412"));
        let open_raw_socket = || socket(AddressFamily::INET, SocketType::RAW, Some(ipproto::SCTP)).unwrap();
        let backend = network.backend.run(open_raw_socket);
        sockopt::set_socket_timeout(&backend, sockopt::Timeout::Recv, Some(REPLY_TIMEOUT)).unwrap();
        let destination: std::net::SocketAddr = with_port(addr::POD[0], 0).parse().unwrap();
        let client = network.client.run(open_raw_socket);
        sendto(&client, &build_sctp_init_packet(4000, 36412), SendFlags::empty(), &destination).unwrap();
        let mut packet = [0; 200];
        let (_, length) = recv(&backend, &mut packet[..], RecvFlags::empty()).unwrap();
        let (header, sctp) = packet[..length].split_at(20);
        assert_eq!(
            header[12..20],
            [[10, 244, 0, 5], [10, 96, 3, 7]].concat(),
            "source and destination address"
        );
        let source_port = u16::from_be_bytes([sctp[0], sctp[1]]);
        assert_eq!(
            sctp,
            build_sctp_init_packet(source_port, 38412),
            "the packet has the target's port and a correct checksum"
        );
    });
}

//! Packets out of the ordinary: too large, in fragments, errors about packets, other protocols.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, UdpSocket};

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, ipproto, recv, sendto, socket, sockopt};

use crate::harness::addr::{self, with_port};
use crate::harness::proxy::split_args;
use crate::harness::traffic::{REPLY_TIMEOUT, UdpClient, open_tcp_stream, serve_udp};
use crate::harness::{Network, Proxy, isolated};

const BOTH: &str = "--forward=tcp/80=10.96.3.7:80 --forward=udp/80=10.96.3.7:80 \
     --forward=tcp/80=[fd00:96::7]:80 --forward=udp/80=[fd00:96::7]:80";

/// Takes one connection and answers, when all has come, how much it was.
fn count_bytes(network: &Network, family: usize) {
    let address = with_port(addr::BACKEND[family], 80);
    let listener = network.backend.run(|| TcpListener::bind(address).unwrap());
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        stream.write_all(all.len().to_string().as_bytes()).unwrap();
    });
}

#[test]
fn a_client_learns_of_a_smaller_mtu_behind_the_proxy() {
    isolated(|| {
        let network = Network::new();
        // The ends don't know, so that only the node's errors can tell the client.
        network.node.ip("link set backend mtu 1300");
        let _proxy = Proxy::start_ready(&network.pod, &split_args(BOTH));
        for family in 0..2 {
            count_bytes(&network, family);
            let to = with_port(addr::POD[family], 80);
            let mut stream =
                open_tcp_stream(&network.client, addr::CLIENT[family], &to, REPLY_TIMEOUT).unwrap();
            stream.write_all(&vec![7; 1 << 20]).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            assert_eq!(answer, (1 << 20).to_string());
        }
    });
}

#[test]
fn a_backend_learns_of_a_smaller_mtu_before_the_proxy() {
    isolated(|| {
        let network = Network::new();
        network.node.ip("link set client mtu 1300");
        let _proxy = Proxy::start_ready(&network.pod, &split_args(BOTH));
        for family in 0..2 {
            let backend = with_port(addr::BACKEND[family], 80);
            let listener = network.backend.run(|| TcpListener::bind(backend).unwrap());
            std::thread::spawn(move || listener.accept().unwrap().0.write_all(&vec![7; 1 << 20]).unwrap());
            let to = with_port(addr::POD[family], 80);
            let mut stream =
                open_tcp_stream(&network.client, addr::CLIENT[family], &to, REPLY_TIMEOUT).unwrap();
            let mut all = Vec::new();
            stream.read_to_end(&mut all).unwrap();
            assert_eq!(all.len(), 1 << 20);
        }
    });
}

#[test]
fn a_datagram_in_fragments_arrives_whole_and_so_does_its_answer() {
    isolated(|| {
        let network = Network::new();
        let _proxy = Proxy::start_ready(&network.pod, &split_args(BOTH));
        for family in 0..2 {
            let backend = with_port(addr::BACKEND[family], 80);
            let backend = network.backend.run(|| UdpSocket::bind(backend).unwrap());
            let client = with_port(addr::CLIENT[family], 0);
            let client = network.client.run(|| UdpSocket::bind(client).unwrap());
            for socket in [&backend, &client] {
                socket.set_read_timeout(Some(REPLY_TIMEOUT)).unwrap();
            }
            let sent: Vec<u8> = (0..20_000_u32).map(|number| (number % 251) as u8).collect();
            client.send_to(&sent, with_port(addr::POD[family], 80)).unwrap();
            let mut received = vec![0; 30_000];
            let (len, from) = backend.recv_from(&mut received).unwrap();
            assert_eq!(received[..len], sent);
            backend.send_to(&sent, from).unwrap();
            let (len, from) = client.recv_from(&mut received).unwrap();
            assert_eq!(received[..len], sent);
            assert_eq!(from.to_string(), with_port(addr::POD[family], 80));
        }
    });
}

#[test]
fn a_client_hears_that_nobody_listens_behind_the_proxy() {
    isolated(|| {
        let network = Network::new();
        let _proxy = Proxy::start_ready(&network.pod, &split_args(BOTH));
        for family in 0..2 {
            let to = with_port(addr::POD[family], 80);
            let refused = UdpClient::new(&network.client, addr::CLIENT[family], &to).request(REPLY_TIMEOUT);
            assert_eq!(refused.unwrap_err().kind(), ErrorKind::ConnectionRefused);
            let refused = open_tcp_stream(&network.client, addr::CLIENT[family], &to, REPLY_TIMEOUT);
            assert_eq!(refused.unwrap_err().kind(), ErrorKind::ConnectionRefused);
        }
        // Not a matter of the network: where somebody frontends, there is an answer.
        serve_udp(&network.backend, &with_port(addr::BACKEND[0], 80));
        UdpClient::new(&network.client, addr::CLIENT[0], &with_port(addr::POD[0], 80))
            .request(REPLY_TIMEOUT)
            .unwrap();
    });
}

/// CRC-32C, bit by bit (RFC 9260, appendix A).
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32| if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
    !bytes.iter().fold(u32::MAX, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| step(crc)))
}

/// An SCTP packet that asks for an association (RFC 9260, section 3.3.2).
fn init(from: u16, to: u16) -> Vec<u8> {
    let mut packet = [from.to_be_bytes(), to.to_be_bytes()].concat();
    packet.extend([0; 8]);
    packet.extend([1, 0, 0, 20]);
    packet.extend(0x1234_5678_u32.to_be_bytes());
    packet.extend(65_536_u32.to_be_bytes());
    packet.extend([0, 1, 0, 1]);
    packet.extend(1_u32.to_be_bytes());
    let sum = crc32c(&packet).to_le_bytes();
    packet[8..12].copy_from_slice(&sum);
    packet
}

/// By hand, since few kernels have SCTP's sockets; forwarding doesn't need them.
#[test]
fn sctp_reaches_the_backend() {
    isolated(|| {
        let network = Network::new();
        let _proxy = Proxy::start_ready(&network.pod, &split_args("--forward=sctp/36412=10.96.3.7:38412"));
        let raw = || socket(AddressFamily::INET, SocketType::RAW, Some(ipproto::SCTP)).unwrap();
        let backend = network.backend.run(raw);
        sockopt::set_socket_timeout(&backend, sockopt::Timeout::Recv, Some(REPLY_TIMEOUT)).unwrap();
        let to: std::net::SocketAddr = with_port(addr::POD[0], 0).parse().unwrap();
        let client = network.client.run(raw);
        sendto(&client, &init(4000, 36412), SendFlags::empty(), &to).unwrap();
        let mut packet = [0; 200];
        let (_, len) = recv(&backend, &mut packet[..], RecvFlags::empty()).unwrap();
        let (header, sctp) = packet[..len].split_at(20);
        assert_eq!(header[12..20], [[10, 244, 0, 5], [10, 96, 3, 7]].concat(), "from the pod to the backend");
        let source = u16::from_be_bytes([sctp[0], sctp[1]]);
        assert_eq!(sctp, init(source, 38412), "the port of the target, and a checksum that fits");
    });
}

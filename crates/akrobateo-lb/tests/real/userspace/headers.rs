//! The backend learns who the client is.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use ppp::{HeaderResult, v1, v2};

use super::{FORWARDS, accept, backends, connect, ip, metric, metrics, pair, port, ready, rest};
use crate::harness::addr::{self, with_port};
use crate::harness::{Network, eventually, isolated};

/// What a backend reads that knows the protocol: the client, where it connected to, and the bytes after that.
fn read(stream: &mut TcpStream, more: usize) -> (SocketAddr, SocketAddr, Vec<u8>) {
    let mut bytes = Vec::new();
    loop {
        let mut some = [0; 512];
        let len = stream.read(&mut some).unwrap();
        assert!(len > 0, "the end comes before the header: {bytes:?}");
        bytes.extend_from_slice(&some[..len]);
        if let Some((client, to, header)) = parse(&bytes)
            && bytes.len() >= header + more
        {
            return (client, to, bytes.split_off(header));
        }
    }
}

fn parse(bytes: &[u8]) -> Option<(SocketAddr, SocketAddr, usize)> {
    match HeaderResult::parse(bytes) {
        HeaderResult::V1(Ok(header)) => {
            let len = header.header.len();
            match header.addresses {
                v1::Addresses::Tcp4(a) => Some((
                    (a.source_address, a.source_port).into(),
                    (a.destination_address, a.destination_port).into(),
                    len,
                )),
                v1::Addresses::Tcp6(a) => Some((
                    (a.source_address, a.source_port).into(),
                    (a.destination_address, a.destination_port).into(),
                    len,
                )),
                v1::Addresses::Unknown => None,
            }
        }
        HeaderResult::V2(Ok(header)) => {
            let len = header.len();
            match header.addresses {
                v2::Addresses::IPv4(a) => Some((
                    (a.source_address, a.source_port).into(),
                    (a.destination_address, a.destination_port).into(),
                    len,
                )),
                v2::Addresses::IPv6(a) => Some((
                    (a.source_address, a.source_port).into(),
                    (a.destination_address, a.destination_port).into(),
                    len,
                )),
                _ => None,
            }
        }
        HeaderResult::V1(Err(_)) | HeaderResult::V2(Err(_)) => None,
    }
}

#[test]
fn both_versions_tell_the_client_and_its_destination_in_both_families() {
    isolated(|| {
        let network = Network::new();
        let backends = backends(&network);
        for version in ["v1", "v2"] {
            let proxy = ready(&network.pod, &format!("{FORWARDS} --proxy-protocol={version}"));
            for family in 0..2 {
                let (mut client, mut backend) = pair(&network, &backends, family);
                // Of a protocol in which the server speaks first, the header is all that comes at first.
                let (from, to, more) = read(&mut backend, 0);
                assert_eq!(from, client.local_addr().unwrap());
                assert_eq!(to.to_string(), with_port(addr::POD[family], 80));
                assert!(more.is_empty());
                backend.write_all(b"220 ready\r\n").unwrap();
                client.read_exact(&mut [0; 11]).unwrap();
                client.write_all(b"QUIT\r\n").unwrap();
                drop(client);
                assert_eq!(rest(&backend).unwrap(), b"QUIT\r\n");
            }
            proxy.kill();
        }
    });
}

#[test]
fn the_header_and_what_the_client_has_sent_meanwhile_come_in_one_segment() {
    isolated(|| {
        let network = Network::new();
        let backends = backends(&network);
        let _proxy = ready(&network.pod, &format!("{FORWARDS} --proxy-protocol=v2"));
        // The dial is slow: its first segment is lost, and comes again after a second.
        network.backend.nft("add table inet slow");
        network.backend.nft("add chain inet slow input { type filter hook input priority 0 ; }");
        network.backend.nft("add rule inet slow input tcp dport 80 drop");
        let mut client = connect(&network, 0);
        client.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        eventually("the proxy has begun to dial", || {
            (metric(&metrics(&network.pod), "akrobateo_lb_open_connections", &["IPv4"]) == 1).then_some(())
        });
        network.backend.nft("add table inet count");
        network.backend.nft("add chain inet count input { type filter hook input priority 0 ; }");
        network.backend.nft("add rule inet count input tcp dport 80 tcp flags & psh == psh counter");
        network.backend.nft("delete table inet slow");
        let mut backend = accept(&backends[0]);
        let mut bytes = [0; 512];
        let len = backend.read(&mut bytes).unwrap();
        let (from, _, header) = parse(&bytes[..len]).expect("a whole header");
        assert_eq!(from, client.local_addr().unwrap());
        assert_eq!(&bytes[header..len], b"GET / HTTP/1.1\r\n\r\n");
        let segments = network.backend.nft("list table inet count");
        assert!(segments.contains("packets 1 "), "{segments}");
        assert_eq!(rest(&backend).unwrap(), b"", "the client's end follows");
        backend.write_all(b"answer").unwrap();
        drop(backend);
        assert_eq!(rest(&client).unwrap(), b"answer");
    });
}

#[test]
fn ports_that_are_not_named_get_no_header() {
    isolated(|| {
        let network = Network::new();
        let backends = backends(&network);
        let line = format!("{FORWARDS} --forward=tcp/443=10.96.3.7:80 --proxy-protocol=v2:443");
        let _proxy = ready(&network.pod, &line);
        let (mut client, backend) = pair(&network, &backends, 0);
        client.write_all(b"plain").unwrap();
        drop(client);
        assert_eq!(rest(&backend).unwrap(), b"plain");
        let to = SocketAddr::new(ip(addr::POD[0]), port(443).get());
        let mut client = network.client.run(|| TcpStream::connect(to).unwrap());
        let mut backend = accept(&backends[0]);
        client.write_all(b"proxy_protocol_for").unwrap();
        let (from, local, more) = read(&mut backend, 9);
        assert_eq!((from, local, &more[..]), (client.local_addr().unwrap(), to, &b"proxy_protocol_for"[..]));
    });
}

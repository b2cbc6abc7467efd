//! The PROXY protocol header that backends receive.

#[path = "../../../src/userspace/header_parser.rs"]
mod header_parser;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

use header_parser::{ParsedHeader, parse_header};

use super::{
    FORWARD_ARGS, accept, bind_backends, connect, connect_pair, fetch_metrics, ip, port, read_to_end,
    start_proxy, sum_metric,
};
use crate::harness::addr::{self, with_port};
use crate::harness::{Network, eventually, isolated};

/// Reads the header and at least `content_length` bytes after the header. Returns the header and these bytes.
fn read_header(stream: &mut TcpStream, content_length: usize) -> (ParsedHeader, Vec<u8>) {
    let mut bytes = Vec::new();
    loop {
        let mut buffer = [0; 512];
        let length = stream.read(&mut buffer).unwrap();
        assert!(length > 0, "the stream ended before the header: {bytes:?}");
        bytes.extend_from_slice(&buffer[..length]);
        if let Some(header) = parse_header(&bytes)
            && bytes.len() >= header.length + content_length
        {
            let content = bytes.split_off(header.length);
            return (header, content);
        }
    }
}

#[test]
fn header_has_the_addresses_of_the_client_and_the_destination() {
    isolated(|| {
        let network = Network::new();
        let backends = bind_backends(&network);
        for version in ["v1", "v2"] {
            let proxy = start_proxy(&network.pod, &format!("{FORWARD_ARGS} --proxy-protocol={version}"));
            for family_index in 0..2 {
                let (mut client, mut backend) = connect_pair(&network, &backends, family_index);
                // If the server speaks first, as in SMTP, the server receives the header without other bytes.
                let (header, content) = read_header(&mut backend, 0);
                assert_eq!(header.client, client.local_addr().unwrap());
                assert_eq!(header.destination.to_string(), with_port(addr::POD[family_index], 80));
                assert!(content.is_empty());
                backend.write_all(b"220 ready\r\n").unwrap();
                client.read_exact(&mut [0; 11]).unwrap();
                client.write_all(b"QUIT\r\n").unwrap();
                drop(client);
                assert_eq!(read_to_end(&backend).unwrap(), b"QUIT\r\n");
            }
            proxy.kill();
        }
    });
}

#[test]
fn header_and_first_bytes_of_the_client_share_one_segment() {
    isolated(|| {
        let network = Network::new();
        let backends = bind_backends(&network);
        let _proxy = start_proxy(&network.pod, &format!("{FORWARD_ARGS} --proxy-protocol=v2"));
        // The rule drops the proxy's SYN. The kernel sends the SYN again after one second.
        network.backend.nft("add table inet slow");
        network.backend.nft("add chain inet slow input { type filter hook input priority 0 ; }");
        network.backend.nft("add rule inet slow input tcp dport 80 drop");
        let mut client = connect(&network, 0);
        client.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        eventually("the proxy has started to connect", || {
            (sum_metric(&fetch_metrics(&network.pod), "akrobateo_lb_open_connections", &["IPv4"]) == 1)
                .then_some(())
        });
        network.backend.nft("add table inet count");
        network.backend.nft("add chain inet count input { type filter hook input priority 0 ; }");
        network.backend.nft("add rule inet count input tcp dport 80 tcp flags & psh == psh counter");
        network.backend.nft("delete table inet slow");
        let mut backend = accept(&backends[0]);
        let mut bytes = [0; 512];
        let length = backend.read(&mut bytes).unwrap();
        let header = parse_header(&bytes[..length]).expect("the header is incomplete");
        assert_eq!(header.client, client.local_addr().unwrap());
        assert_eq!(&bytes[header.length..length], b"GET / HTTP/1.1\r\n\r\n");
        let segment_counter = network.backend.nft("list table inet count");
        assert!(segment_counter.contains("packets 1 "), "{segment_counter}");
        assert_eq!(
            read_to_end(&backend).unwrap(),
            b"",
            "the backend received more bytes than the client sent"
        );
        backend.write_all(b"answer").unwrap();
        drop(backend);
        assert_eq!(read_to_end(&client).unwrap(), b"answer");
    });
}

#[test]
fn ports_without_proxy_protocol_do_not_get_a_header() {
    isolated(|| {
        let network = Network::new();
        let backends = bind_backends(&network);
        let command_line = format!("{FORWARD_ARGS} --forward=tcp/443=10.96.3.7:80 --proxy-protocol=v2:443");
        let _proxy = start_proxy(&network.pod, &command_line);
        let (mut client, backend) = connect_pair(&network, &backends, 0);
        client.write_all(b"plain").unwrap();
        drop(client);
        assert_eq!(read_to_end(&backend).unwrap(), b"plain");
        let address = SocketAddr::new(ip(addr::POD[0]), port(443).get());
        let mut client = network.client.run(|| TcpStream::connect(address).unwrap());
        let mut backend = accept(&backends[0]);
        client.write_all(b"content").unwrap();
        let (header, content) = read_header(&mut backend, 7);
        assert_eq!((header.client, header.destination), (client.local_addr().unwrap(), address));
        assert_eq!(content, b"content");
    });
}

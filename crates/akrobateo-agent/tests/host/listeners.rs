//! Tests of the ports on which processes and the kernel listen.

use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::num::NonZeroU16;
use std::time::Instant;

use akrobateo_agent::listeners::{self, Listeners};
use akrobateo_core::{Family, Frontend, Protocol};
use netns_testkit::privileges::{CapabilitySet, keep_capabilities};
use netns_testkit::{Namespace, isolated};
use socket2::{Domain, Socket, Type};

const NODE_ADDRESSES: [&str; 2] = ["10.99.0.11", "fd99::11"];

/// Returns a network namespace with the node's addresses, and with one more address of each family.
fn node_netns() -> Namespace {
    let namespace = Namespace::new();
    namespace.ip("link add eth0 type veth peer name peer\nlink set eth0 up\nlink set peer up");
    let addresses =
        ["10.99.0.11", "fd99::11", "10.99.0.12", "fd99::12"].map(|address| address.parse().unwrap());
    namespace.add_addresses("eth0", &addresses);
    namespace
}

/// Returns the address families of the sockets that occupy a port of the node.
fn occupied_families(listeners: &Listeners, protocol: Protocol, port: u16) -> Vec<Family> {
    let addresses = NODE_ADDRESSES.map(|address| address.parse::<IpAddr>().unwrap());
    let port = NonZeroU16::new(port).unwrap();
    let is_occupied =
        |family: &Family| listeners.has_listener(Frontend { family: *family, protocol, port }, &addresses);
    Family::ALL.into_iter().filter(is_occupied).collect()
}

/// Opens a socket with these options, and binds it.
fn bind(protocol: Protocol, address: &str, port: u16, set_options: impl FnOnce(&Socket)) -> Socket {
    let address = SocketAddr::new(address.parse().unwrap(), port);
    let kind = if protocol == Protocol::Tcp { Type::STREAM } else { Type::DGRAM };
    let socket = Socket::new(Domain::for_address(address), kind, None).unwrap();
    set_options(&socket);
    socket.bind(&address.into()).unwrap();
    socket
}

/// Opens a socket that receives packets from clients.
fn listen(protocol: Protocol, address: &str, port: u16, set_options: impl FnOnce(&Socket)) -> Socket {
    let socket = bind(protocol, address, port, set_options);
    if protocol == Protocol::Tcp {
        socket.listen(1).unwrap();
    }
    socket
}

#[test]
fn listener_on_the_wildcard_or_a_node_address_occupies_its_port() {
    let (v4, v6) = (Family::V4, Family::V6);
    let cases = [
        ("0.0.0.0", vec![v4]),
        ("10.99.0.11", vec![v4]),
        ("fd99::11", vec![v6]),
        ("::", vec![v4, v6]),
        ("::ffff:10.99.0.11", vec![v4]),
        ("10.99.0.12", vec![]),
        ("fd99::12", vec![]),
        ("127.0.0.1", vec![]),
        ("::1", vec![]),
        ("::ffff:127.0.0.1", vec![]),
    ];
    isolated(|| {
        node_netns().run(|| {
            for (address, families) in &cases {
                for (protocol, other) in [(Protocol::Tcp, Protocol::Udp), (Protocol::Udp, Protocol::Tcp)] {
                    let socket = listen(protocol, address, 80, |_| ());
                    let listeners = listeners::read().unwrap();
                    assert_eq!(
                        occupied_families(&listeners, protocol, 80),
                        *families,
                        "{protocol} {address}"
                    );
                    assert_eq!(occupied_families(&listeners, other, 80), [], "{protocol} {address}");
                    assert_eq!(occupied_families(&listeners, protocol, 81), [], "{protocol} {address}");
                    drop(socket);
                    assert_eq!(listeners::read().unwrap(), Listeners::default());
                }
            }
        });
    });
}

#[test]
fn socket_options_limit_the_families_and_interfaces_of_a_listener() {
    isolated(|| {
        node_netns().run(|| {
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                let _ipv6_only = listen(protocol, "::", 80, |socket| socket.set_only_v6(true).unwrap());
                let bind_to_loopback = |socket: &Socket| socket.bind_device(Some(b"lo")).unwrap();
                let _on_loopback = listen(protocol, "0.0.0.0", 81, bind_to_loopback);
                let bind_to_uplink = |socket: &Socket| socket.bind_device(Some(b"eth0")).unwrap();
                let _on_uplink = listen(protocol, "0.0.0.0", 82, bind_to_uplink);
                let listeners = listeners::read().unwrap();
                let families = [80, 81, 82].map(|port| occupied_families(&listeners, protocol, port));
                assert_eq!(families, [vec![Family::V6], vec![], vec![Family::V4]], "{protocol}");
            }
        });
    });
}

#[test]
fn connected_and_unused_sockets_do_not_occupy_ports() {
    isolated(|| {
        node_netns().run(|| {
            let bound_socket = bind(Protocol::Tcp, "0.0.0.0", 80, |_| ());
            let connected_socket = UdpSocket::bind("10.99.0.11:80").unwrap();
            connected_socket.connect("10.99.0.12:53").unwrap();
            let listener = listen(Protocol::Tcp, "10.99.0.12", 82, |_| ());
            let client = bind(Protocol::Tcp, "10.99.0.11", 81, |_| ());
            client.connect(&listener.local_addr().unwrap()).unwrap();
            let client: TcpStream = client.into();
            assert_eq!(client.local_addr().unwrap().port(), 81);
            let listeners = listeners::read().unwrap();
            for protocol in Protocol::ALL {
                for port in [80, 81, 82] {
                    assert_eq!(occupied_families(&listeners, protocol, port), [], "{protocol}/{port}");
                }
            }
            bound_socket.listen(1).unwrap();
            assert_eq!(occupied_families(&listeners::read().unwrap(), Protocol::Tcp, 80), [Family::V4]);
        });
    });
}

#[test]
fn vxlan_device_occupies_its_port() {
    isolated(|| {
        let node = node_netns();
        node.ip("link add vxlan4 type vxlan id 5 dstport 8472 local 10.99.0.11\nlink set vxlan4 up\n\
             link add vxlan6 type vxlan id 5 dstport 8473 local fd99::11\nlink set vxlan6 up");
        let listeners = node.run(|| listeners::read().unwrap());
        assert_eq!(occupied_families(&listeners, Protocol::Udp, 8472), [Family::V4]);
        assert_eq!(occupied_families(&listeners, Protocol::Udp, 8473), [Family::V6]);
        node.ip("link delete vxlan4");
        let listeners = node.run(|| listeners::read().unwrap());
        assert_eq!(occupied_families(&listeners, Protocol::Udp, 8472), []);
    });
}

#[test]
fn listener_in_another_network_namespace_does_not_occupy_the_port() {
    isolated(|| {
        let _socket = Namespace::new().run(|| listen(Protocol::Tcp, "0.0.0.0", 80, |_| ()));
        assert_eq!(node_netns().run(|| listeners::read().unwrap()), Listeners::default());
    });
}

#[test]
fn capability_net_admin_suffices_to_list_the_sockets() {
    isolated(|| {
        let node = node_netns();
        let _socket = node.run(|| listen(Protocol::Tcp, "0.0.0.0", 80, |_| ()));
        let listeners = node.run(|| {
            keep_capabilities(CapabilitySet::NET_ADMIN);
            listeners::read().unwrap()
        });
        assert_eq!(occupied_families(&listeners, Protocol::Tcp, 80), [Family::V4]);
    });
}

/// The kernel's answer has more than one datagram. With `--nocapture` the test prints the duration.
#[test]
fn list_of_ten_thousand_sockets_is_complete() {
    const PORTS: std::ops::Range<u16> = 1000..6000;
    isolated(|| {
        node_netns().run(|| {
            let open =
                |port| [Protocol::Tcp, Protocol::Udp].map(|protocol| listen(protocol, "::", port, |_| ()));
            let sockets: Vec<_> = PORTS.map(open).collect();
            let start = Instant::now();
            let listeners = listeners::read().unwrap();
            println!("{} sockets: {:?}", 2 * sockets.len(), start.elapsed());
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                for port in PORTS {
                    assert_eq!(
                        occupied_families(&listeners, protocol, port),
                        Family::ALL,
                        "{protocol}/{port}"
                    );
                }
            }
        });
    });
}

//! Tests of a table that is similar to the node agent's table: the nft program prints it, and real packets pass it.

mod network;
mod table;

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::time::Duration;

use akrobateo_core::Family;
use netfilter::conntrack::{Conntrack, EntryFilter, MarkCondition};
use netfilter::nft::client::Nftables;
use netfilter::nft::model::{Element, ElementValue};
use netfilter::nft::{InstalledTable, Transaction};
use netns_testkit::{eventually, isolated, tcp};

use network::Network;
use table::{
    AFFINITY_PORT, CONNTRACK_ZONE, FRONTEND_PORT, PORT_WITHOUT_ENDPOINTS, TRANSLATED_MARK, addresses,
    egress_table, ip_bytes, table,
};

const TIMEOUT: Duration = Duration::from_secs(5);

/// Connects to a frontend. Returns the index of the pod that accepts the connection, and the client's address that the
/// pod sees.
fn connect_and_accept(network: &Network, listeners: &[TcpListener], frontend: SocketAddr) -> (usize, IpAddr) {
    let _stream = network.client_netns.run(|| tcp::connect(None, frontend, TIMEOUT)).unwrap();
    eventually("a pod accepts the connection", || {
        listeners.iter().enumerate().find_map(|(index, listener)| match listener.accept() {
            Ok((_, client)) => Some((index, client.ip())),
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            Err(error) => panic!("{error}"),
        })
    })
}

#[test]
fn new_connections_reach_all_endpoints_and_keep_the_client_address() {
    isolated(|| {
        let network = Network::new();
        let table = table(network.client_mac());
        assert_eq!(table.check(), Ok(()));
        network.node_netns.run(|| Nftables::open().unwrap().execute(&Transaction::create(&table)).unwrap());
        for addresses in Family::ALL.map(addresses) {
            let listeners = network.listen(|index| addresses.pods[index]);
            let frontend = SocketAddr::new(addresses.node, FRONTEND_PORT);
            let mut connections = [0; 2];
            for _ in 0..40 {
                let (pod, client) = connect_and_accept(&network, &listeners, frontend);
                assert_eq!(client, addresses.client);
                connections[pod] += 1;
            }
            assert!(connections.iter().all(|count| *count > 0), "{connections:?}");
        }
        // The conntrack entries have the peer's zone and the mark.
        network.node_netns.run(|| {
            let conntrack = Conntrack::open().unwrap();
            for family in Family::ALL {
                let mark = Some(MarkCondition { bits: TRANSLATED_MARK, mask: TRANSLATED_MARK });
                let filter = EntryFilter { zone: Some(CONNTRACK_ZONE), mark, ..EntryFilter::new(family) };
                assert_eq!(conntrack.entries(&filter).unwrap().len(), 40);
            }
        });
    });
}

#[test]
fn client_stays_with_its_endpoint_until_its_entry_is_deleted() {
    isolated(|| {
        let network = Network::new();
        let table = table(network.client_mac());
        network.node_netns.run(|| Nftables::open().unwrap().execute(&Transaction::create(&table)).unwrap());
        for addresses in Family::ALL.map(addresses) {
            let listeners = network.listen(|index| addresses.pods[index]);
            let frontend = SocketAddr::new(addresses.node, AFFINITY_PORT);
            let set = table.set(&format!("affinity{}", addresses.suffix)).unwrap();
            let first_connection = connect_and_accept(&network, &listeners, frontend);
            for _ in 0..10 {
                assert_eq!(connect_and_accept(&network, &listeners, frontend), first_connection);
            }
            let endpoint = ip_bytes(addresses.pods[first_connection.0]);
            let uses_endpoint = |element: &Element| match &element.value {
                Some(ElementValue::Data(value)) => value.bytes().starts_with(&endpoint),
                _ => false,
            };
            network.node_netns.run(|| {
                let nftables = Nftables::open().unwrap();
                let elements = nftables.read_elements(&table.id, set).unwrap().unwrap();
                assert_eq!(elements.len(), 1);
                assert!(uses_endpoint(&elements[0]));
                let lifetime = elements[0].lifetime.as_ref().unwrap();
                assert_eq!(lifetime.timeout_millis, 600_000);
                assert!((500_000..=600_000).contains(&lifetime.remaining_millis), "{lifetime:?}");
                // The kernel has the desired table. The comparison ignores the element that a packet has added.
                let (_, installed) = nftables.read(&table.id).unwrap();
                assert!(installed.unwrap().equals_ignoring_state(&table));
                assert_eq!(nftables.delete_dynamic_elements(&table.id, set, |_| false).unwrap(), 0);
                assert_eq!(nftables.delete_dynamic_elements(&table.id, set, uses_endpoint).unwrap(), 1);
                assert_eq!(nftables.read_elements(&table.id, set).unwrap(), Some(Vec::new()));
            });
        }
    });
}

#[test]
fn frontend_without_endpoints_refuses_clients_at_once() {
    isolated(|| {
        let network = Network::new();
        let table = table(network.client_mac());
        network.node_netns.run(|| Nftables::open().unwrap().execute(&Transaction::create(&table)).unwrap());
        for addresses in Family::ALL.map(addresses) {
            let frontend = SocketAddr::new(addresses.node, PORT_WITHOUT_ENDPOINTS);
            // A listener of the node itself does not receive the packets.
            let _listener = network.node_netns.run(|| TcpListener::bind(frontend).unwrap());
            let error = network.client_netns.run(|| tcp::connect(None, frontend, TIMEOUT)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
            let _listener = network.node_netns.run(|| UdpSocket::bind(frontend).unwrap());
            let socket = network.client_netns.run(|| UdpSocket::bind((addresses.client, 0)).unwrap());
            socket.connect(frontend).unwrap();
            socket.set_read_timeout(Some(TIMEOUT)).unwrap();
            socket.send(&[1]).unwrap();
            assert_eq!(socket.recv(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionRefused);
        }
    });
}

#[test]
fn egress_chain_writes_the_mac_address_of_marked_frames() {
    isolated(|| {
        let network = Network::new();
        let [addresses, _] = Family::ALL.map(addresses);
        let egress_table = egress_table(7, [2, 0, 0, 0, 0, 9]);
        network.node_netns.run(|| {
            Nftables::open().unwrap().execute(&Transaction::create(&egress_table)).unwrap();
        });
        // Only packets to this port get the mark.
        let marked_port = 9999;
        network.node_netns.load_nft(&format!(
            "table ip marks {{ chain output {{ type filter hook output priority 0; \
             udp dport {marked_port} meta mark set 7; }}; }}\n"
        ));
        // The client counts the frames with each MAC address, including frames that are addressed to other interfaces.
        network.client_netns.load_nft(
            "table netdev counts { chain ingress { type filter hook ingress device eth0 priority 0; \
             ether daddr 02:00:00:00:00:09 meta mark 0 udp dport 9999 counter; \
             ether daddr != 02:00:00:00:00:09 udp dport 9998 counter; }; }\n",
        );
        let socket = network.node_netns.run(|| UdpSocket::bind((addresses.node, 0)).unwrap());
        for port in [marked_port, 9998] {
            socket.send_to(&[1], (addresses.client, port)).unwrap();
        }
        eventually("both datagrams arrive with their MAC address", || {
            let counters = network.client_netns.nft("list table netdev counts");
            (counters.matches("packets 1 ").count() == 2).then_some(())
        });
    });
}

#[test]
fn nft_program_prints_the_expected_rules() {
    isolated(|| {
        let network = Network::new();
        let table = table([2, 0, 0, 0, 0, 7]);
        let egress_table = egress_table(7, [2, 0, 0, 0, 0, 9]);
        network.node_netns.run(|| {
            let nftables = Nftables::open().unwrap();
            // A single transaction creates both tables.
            let transaction = Transaction::create(&table).then(Transaction::create(&egress_table));
            nftables.execute(&transaction).unwrap();
            assert_eq!(nftables.read(&table.id).unwrap().1, Some(InstalledTable::from(table.clone())));
        });
        let listing = network.node_netns.nft("list ruleset");
        for line in [
            "192.0.2.1 . tcp . 80 : goto n2",
            "tcp . 81 . 0x00000001 : 10.244.2.10 . 8080",
            "elements = { 10.244.1.10-10.244.2.10 }",
            "elements = { tcp . 80 . 0.0.0.0/0 }",
            "elements = { 02:00:00:00:00:07 : 27394 }",
            "elements = { 0x00000007 : 02:00:00:00:00:09 }",
            "type filter hook prerouting priority raw - 10; policy accept;",
            "type filter hook egress device \"eth0\" priority filter; policy accept;",
            "ct mark set ct mark | 0x20000000",
            "meta nfproto ipv6 dnat ip6 to meta l4proto . th dport . numgen random mod 2 map @endpoints6",
            "dnat ip to ip saddr . meta l4proto . th dport map @affinity4",
            "iifname \"eth0\" ct original zone set @ll,48,48 map @peer_zone",
            "fib daddr type != local accept",
            "ip6 daddr . meta l4proto . th dport vmap @services6",
            "update @affinity6 { ip6 saddr . meta l4proto . ct original proto-dst timeout 10m : \
             ip6 daddr . th dport } comment \"remember the endpoint\"",
            "ct status dnat ip saddr @inside4 masquerade fully-random",
            "ct mark & 0x20000000 != 0x00000000 meta l4proto tcp reject with tcp reset",
            "ct mark & 0x20000000 != 0x00000000 meta l4proto udp reject",
            "tcp option maxseg size set rt mtu",
            "@ll,0,48 set meta mark map @macs meta mark set 0x00000000",
        ] {
            assert!(listing.contains(line), "{line} is not in\n{listing}");
        }
    });
}

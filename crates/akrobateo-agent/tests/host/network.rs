//! Tests of the uplink, the local addresses, the watch and the use of conntrack.

use std::net::{IpAddr, UdpSocket};

use akrobateo_agent::host::{self, ConntrackUse, HostError, HostNetwork, HostWatch};
use netns_testkit::privileges::{CapabilitySet, keep_capabilities, make_sysctls_read_only};
use netns_testkit::{Namespace, eventually, isolated, isolated_as_nobody};

fn parse_ips(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn read_network(netns: &Namespace, node_addresses: &[&str]) -> Result<HostNetwork, HostError> {
    netns.run(|| host::read(&parse_ips(node_addresses)))
}

#[test]
fn interface_of_any_kind_with_the_address_is_the_uplink() {
    isolated(|| {
        for kind in [
            "type veth peer name far",
            "type bridge",
            "link eth0 type macvlan mode bridge",
            "type vxlan id 5 dstport 8472 local 10.99.0.11",
        ] {
            let namespace = Namespace::new();
            namespace.ip("link add eth0 type veth peer name peer\nlink set eth0 up\n\
                 address add 10.99.0.11/24 dev eth0");
            namespace.ip(&format!(
                "link add uplink address 02:00:00:00:00:07 mtu 1400 {kind}\nlink set uplink up"
            ));
            namespace.ip("address add 192.0.2.1/24 dev uplink\naddress add 192.0.2.9/24 dev uplink\n\
                 address add 2001:db8::1/64 dev uplink nodad");
            let node_addresses = ["203.0.113.7", "2001:db8::1", "192.0.2.1", "10.99.0.11"];
            let expected = HostNetwork {
                uplink: "uplink".to_owned(),
                mac: Some("02:00:00:00:00:07".parse().unwrap()),
                mtu: 1400,
                local_addresses: parse_ips(&node_addresses[1..]),
            };
            assert_eq!(read_network(&namespace, &node_addresses).unwrap(), expected, "{kind}");
        }
    });
}

#[test]
fn tun_interface_has_no_mac_address() {
    isolated(|| {
        let namespace = Namespace::new();
        namespace.ip("tuntap add uplink mode tun");
        namespace.ip("address add 192.0.2.1 peer 192.0.2.2 dev uplink\nlink set uplink up");
        let network = read_network(&namespace, &["192.0.2.1"]).unwrap();
        assert_eq!((network.mac, network.local_addresses), (None, parse_ips(&["192.0.2.1"])));
        // The address of the other end is not local.
        assert!(matches!(read_network(&namespace, &["192.0.2.2"]), Err(HostError::NoInterface(_))));
    });
}

#[test]
fn interface_that_is_down_with_the_same_address_is_not_the_uplink() {
    isolated(|| {
        let namespace = Namespace::new();
        namespace
            .ip("link add kube-ipvs0 type bridge\nlink add eth0 type veth peer name peer\nlink set eth0 up");
        namespace.ip("address add 192.0.2.1/32 dev kube-ipvs0\naddress add 192.0.2.1/24 dev eth0");
        assert_eq!(read_network(&namespace, &["192.0.2.1"]).unwrap().uplink, "eth0");
    });
}

#[test]
fn uplink_is_found_among_hundreds_of_interfaces() {
    isolated(|| {
        let namespace = Namespace::new();
        let add = |number| format!("link add pod{number} type veth peer name far{number}\n");
        namespace.ip(&(1..=250).map(add).collect::<String>());
        namespace.ip("address add 192.0.2.1/24 dev far250");
        let network = namespace.run(|| {
            let start = std::time::Instant::now();
            let network = host::read(&parse_ips(&["192.0.2.1"])).unwrap();
            println!("502 interfaces: {:?}", start.elapsed());
            network
        });
        assert_eq!(network.uplink, "far250");
    });
}

#[test]
fn watch_reports_changes_of_interfaces_and_addresses() {
    isolated(|| {
        let namespace = Namespace::new();
        // With link-local addresses, the kernel would also report the end of duplicate address detection.
        namespace.ip("link add eth0 type veth peer name peer\nlink set eth0 addrgenmode none\n\
             link set peer addrgenmode none\nlink set eth0 up\nlink set peer up");
        namespace.run(|| {
            let watch = HostWatch::open().unwrap();
            for command in [
                "address add 192.0.2.1/24 dev eth0",
                "address add 2001:db8::1/64 dev eth0 nodad",
                "link set eth0 mtu 1400",
                "link set eth0 address 02:00:00:00:00:07",
                "address delete 192.0.2.1/24 dev eth0",
                "address delete 2001:db8::1/64 dev eth0",
                "link set eth0 down",
                "link delete eth0",
            ] {
                watch.has_changes().unwrap();
                namespace.ip(command);
                // The kernel reports a new IPv6 address from a work queue.
                eventually(command, || watch.has_changes().unwrap().then_some(()));
            }
            // The kernel reports some consequences of the previous commands up to a second later.
            eventually("changes of routes and rules are not reported", || {
                watch.has_changes().unwrap();
                namespace.ip("route add blackhole 198.51.100.0/24\nrule add priority 97 lookup 5\n\
                     route delete blackhole 198.51.100.0/24\nrule delete priority 97");
                (!watch.has_changes().unwrap()).then_some(())
            });
        });
    });
}

#[test]
fn conntrack_use_follows_the_number_of_flows() {
    isolated(|| {
        let namespace = Namespace::new();
        namespace.load_nft(
            "table inet example { chain input { type filter hook input priority 0; ct state invalid drop; }; }\n",
        );
        namespace.run(|| {
            let use_before = ConntrackUse::read().unwrap();
            let receiver = UdpSocket::bind("127.0.0.1:80").unwrap();
            let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
            sender.send_to(b"x", receiver.local_addr().unwrap()).unwrap();
            receiver.recv(&mut [0]).unwrap();
            let use_after = ConntrackUse::read().unwrap();
            assert_eq!(use_after, ConntrackUse { count: use_before.count + 1, ..use_before });
            assert!(use_after.max > 1);
        });
    });
}

#[test]
fn user_with_only_net_admin_can_read_the_network() {
    isolated_as_nobody(|| {
        let namespace = Namespace::new();
        namespace.ip("link add eth0 type veth peer name peer\naddress add 192.0.2.1/24 dev eth0");
        make_sysctls_read_only();
        namespace.run(|| {
            keep_capabilities(CapabilitySet::NET_ADMIN);
            assert_eq!(host::read(&parse_ips(&["192.0.2.1"])).unwrap().uplink, "eth0");
            assert!(!HostWatch::open().unwrap().has_changes().unwrap());
            ConntrackUse::read().unwrap();
        });
    });
}

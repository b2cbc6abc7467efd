//! Flows that started before the current rules were installed. An earlier flow keeps its target, gets a new target, or
//! ends.

use crate::harness::addr::{self, with_port};
use crate::harness::proxy::split_args;
use crate::harness::traffic::{
    NO_REPLY_TIMEOUT, REPLY_TIMEOUT, UdpClient, connect_tcp, serve_tcp, serve_udp,
};
use crate::harness::{Network, Proxy, isolated};

fn create_network_with_backends() -> Network {
    let network = Network::new();
    for ip in [addr::BACKEND[0], addr::BACKEND_2[0], addr::BACKEND[1], addr::BACKEND_2[1]] {
        serve_tcp(&network.backend, &with_port(ip, 80));
        serve_udp(&network.backend, &with_port(ip, 80));
    }
    network
}

#[test]
fn udp_flow_that_started_before_the_rules_is_forwarded() {
    isolated(|| {
        let network = create_network_with_backends();
        // The kernel tracks flows as soon as a rule of any table uses conntrack.
        network.pod.nft("add table inet other");
        network.pod.nft("add chain inet other input { type filter hook input priority 0 ; }");
        network.pod.nft("add rule inet other input ct state established accept");
        let clients = [0, 1].map(|family_index| {
            UdpClient::new(
                &network.client,
                addr::CLIENT[family_index],
                &with_port(addr::POD[family_index], 80),
            )
        });
        for client in &clients {
            client.request(NO_REPLY_TIMEOUT).unwrap_err();
        }
        let _proxy = Proxy::start_and_wait(
            &network.pod,
            &split_args("--forward=udp/80=10.96.3.7:80 --forward=udp/80=[fd00:96::7]:80"),
        );
        for (family_index, client) in clients.iter().enumerate() {
            assert_eq!(
                client.request(REPLY_TIMEOUT).unwrap().destination_address.ip().to_string(),
                addr::BACKEND[family_index]
            );
        }
    });
}

#[test]
fn new_target_applies_to_udp_flows_but_not_to_tcp_connections() {
    isolated(|| {
        let network = create_network_with_backends();
        let forwards =
            |target: &str| split_args(&format!("--forward=tcp/80={target} --forward=udp/80={target}"));
        let destination = with_port(addr::POD[0], 80);
        let old_proxy = Proxy::start_and_wait(&network.pod, &forwards("10.96.3.7:80"));
        let udp_client = UdpClient::new(&network.client, addr::CLIENT[0], &destination);
        assert_eq!(
            udp_client.request(REPLY_TIMEOUT).unwrap().destination_address.ip().to_string(),
            addr::BACKEND[0]
        );
        let mut old_connection =
            connect_tcp(&network.client, addr::CLIENT[0], &destination, REPLY_TIMEOUT).unwrap();
        old_proxy.kill();
        let _new_proxy = Proxy::start_and_wait(&network.pod, &forwards("10.96.3.8:80"));
        assert_eq!(
            udp_client.request(REPLY_TIMEOUT).unwrap().destination_address.ip().to_string(),
            addr::BACKEND_2[0]
        );
        old_connection.check_echo().unwrap();
        let new_connection =
            connect_tcp(&network.client, addr::CLIENT[0], &destination, REPLY_TIMEOUT).unwrap();
        assert_eq!(new_connection.reply.destination_address.ip().to_string(), addr::BACKEND_2[0]);
    });
}

#[test]
fn narrower_source_ranges_end_only_flows_of_denied_clients() {
    isolated(|| {
        let network = create_network_with_backends();
        let forwards = split_args("--forward=tcp/80=10.96.3.7:80 --forward=udp/80=10.96.3.7:80");
        let destination = with_port(addr::POD[0], 80);
        let unrestricted_proxy = Proxy::start_and_wait(&network.pod, &forwards);
        let start_flows = |client: &str| {
            let udp_client = UdpClient::new(&network.client, client, &destination);
            udp_client.request(REPLY_TIMEOUT).unwrap();
            (connect_tcp(&network.client, client, &destination, REPLY_TIMEOUT).unwrap(), udp_client)
        };
        let (mut allowed_tcp, allowed_udp) = start_flows(addr::CLIENT[0]);
        let (mut denied_tcp, denied_udp) = start_flows(addr::CLIENT_2[0]);
        unrestricted_proxy.kill();
        let restricted_proxy =
            Proxy::start_and_wait(&network.pod, &[forwards, split_args("--source=192.0.2.2/32")].concat());
        restricted_proxy.wait_for_log("deleted conntrack entries");
        allowed_tcp.check_echo().unwrap();
        allowed_udp.request(REPLY_TIMEOUT).unwrap();
        denied_udp.request(NO_REPLY_TIMEOUT).unwrap_err();
        denied_tcp.set_reply_timeout(NO_REPLY_TIMEOUT);
        denied_tcp.check_echo().unwrap_err();
    });
}

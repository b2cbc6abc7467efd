//! Flows that began under other rules: which go on, which follow, which end.

use crate::harness::addr::{self, with_port};
use crate::harness::proxy::split_args;
use crate::harness::traffic::{
    NO_REPLY_TIMEOUT, REPLY_TIMEOUT, UdpClient, connect_tcp, serve_tcp, serve_udp,
};
use crate::harness::{Network, Proxy, isolated};

fn network() -> Network {
    let network = Network::new();
    for ip in [addr::BACKEND[0], addr::BACKEND_2[0], addr::BACKEND[1], addr::BACKEND_2[1]] {
        serve_tcp(&network.backend, &with_port(ip, 80));
        serve_udp(&network.backend, &with_port(ip, 80));
    }
    network
}

#[test]
fn a_udp_flow_that_began_before_the_rules_reaches_the_backend() {
    isolated(|| {
        let network = network();
        // Flows are tracked from the first rule that asks for it, of whatever table.
        network.pod.nft("add table inet other");
        network.pod.nft("add chain inet other any { type filter hook input priority 0 ; }");
        network.pod.nft("add rule inet other any ct state established accept");
        let flows = [0, 1].map(|family| {
            UdpClient::new(&network.client, addr::CLIENT[family], &with_port(addr::POD[family], 80))
        });
        for flow in &flows {
            flow.request(NO_REPLY_TIMEOUT).unwrap_err();
        }
        let _proxy = Proxy::start_ready(
            &network.pod,
            &split_args("--forward=udp/80=10.96.3.7:80 --forward=udp/80=[fd00:96::7]:80"),
        );
        for (family, flow) in flows.iter().enumerate() {
            assert_eq!(flow.request(REPLY_TIMEOUT).unwrap().local.ip().to_string(), addr::BACKEND[family]);
        }
    });
}

#[test]
fn udp_flows_follow_a_changed_target_and_tcp_connections_stay() {
    isolated(|| {
        let network = network();
        let forwards =
            |target: &str| split_args(&format!("--forward=tcp/80={target} --forward=udp/80={target}"));
        let to = with_port(addr::POD[0], 80);
        let first = Proxy::start_ready(&network.pod, &forwards("10.96.3.7:80"));
        let udp = UdpClient::new(&network.client, addr::CLIENT[0], &to);
        assert_eq!(udp.request(REPLY_TIMEOUT).unwrap().local.ip().to_string(), addr::BACKEND[0]);
        let mut before = connect_tcp(&network.client, addr::CLIENT[0], &to, REPLY_TIMEOUT).unwrap();
        first.kill();
        let _second = Proxy::start_ready(&network.pod, &forwards("10.96.3.8:80"));
        assert_eq!(udp.request(REPLY_TIMEOUT).unwrap().local.ip().to_string(), addr::BACKEND_2[0]);
        before.check_echo().unwrap();
        let after = connect_tcp(&network.client, addr::CLIENT[0], &to, REPLY_TIMEOUT).unwrap();
        assert_eq!(after.reply.local.ip().to_string(), addr::BACKEND_2[0]);
    });
}

#[test]
fn tighter_ranges_end_the_flows_of_those_who_are_now_kept_out() {
    isolated(|| {
        let network = network();
        let forwards = split_args("--forward=tcp/80=10.96.3.7:80 --forward=udp/80=10.96.3.7:80");
        let to = with_port(addr::POD[0], 80);
        let wide = Proxy::start_ready(&network.pod, &forwards);
        let flows = || {
            [addr::CLIENT[0], addr::CLIENT_2[0]].map(|from| {
                let udp = UdpClient::new(&network.client, from, &to);
                udp.request(REPLY_TIMEOUT).unwrap();
                (connect_tcp(&network.client, from, &to, REPLY_TIMEOUT).unwrap(), udp)
            })
        };
        let [(mut tcp_in, udp_in), (mut tcp_out, udp_out)] = flows();
        wide.kill();
        let tight =
            Proxy::start_ready(&network.pod, &[forwards, split_args("--source=192.0.2.2/32")].concat());
        tight.wait_for_log("ended flows");
        tcp_in.check_echo().unwrap();
        udp_in.request(REPLY_TIMEOUT).unwrap();
        udp_out.request(NO_REPLY_TIMEOUT).unwrap_err();
        tcp_out.set_reply_timeout(NO_REPLY_TIMEOUT);
        tcp_out.check_echo().unwrap_err();
    });
}

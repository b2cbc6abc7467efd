//! Flows that began under other rules: which go on, which follow, which end.

use crate::harness::network::{at, with_port};
use crate::harness::proxy::args;
use crate::harness::traffic::{Datagrams, IMPATIENCE, PATIENCE, serve_tcp, serve_udp, tcp};
use crate::harness::{Network, Proxy, isolated};

fn network() -> Network {
    let network = Network::new();
    for ip in [at::BACKEND[0], at::BACKEND_2[0], at::BACKEND[1], at::BACKEND_2[1]] {
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
            Datagrams::new(&network.client, at::CLIENT[family], &with_port(at::POD[family], 80))
        });
        for flow in &flows {
            flow.ask(IMPATIENCE).unwrap_err();
        }
        let _proxy = Proxy::ready(
            &network.pod,
            &args("--forward=udp/80=10.96.3.7:80 --forward=udp/80=[fd00:96::7]:80"),
        );
        for (family, flow) in flows.iter().enumerate() {
            assert_eq!(flow.ask(PATIENCE).unwrap().local.ip().to_string(), at::BACKEND[family]);
        }
    });
}

#[test]
fn udp_flows_follow_a_changed_target_and_tcp_connections_stay() {
    isolated(|| {
        let network = network();
        let forwards = |target: &str| args(&format!("--forward=tcp/80={target} --forward=udp/80={target}"));
        let to = with_port(at::POD[0], 80);
        let first = Proxy::ready(&network.pod, &forwards("10.96.3.7:80"));
        let udp = Datagrams::new(&network.client, at::CLIENT[0], &to);
        assert_eq!(udp.ask(PATIENCE).unwrap().local.ip().to_string(), at::BACKEND[0]);
        let mut before = tcp(&network.client, at::CLIENT[0], &to, PATIENCE).unwrap();
        first.kill();
        let _second = Proxy::ready(&network.pod, &forwards("10.96.3.8:80"));
        assert_eq!(udp.ask(PATIENCE).unwrap().local.ip().to_string(), at::BACKEND_2[0]);
        before.echoes().unwrap();
        let after = tcp(&network.client, at::CLIENT[0], &to, PATIENCE).unwrap();
        assert_eq!(after.answer.local.ip().to_string(), at::BACKEND_2[0]);
    });
}

#[test]
fn tighter_ranges_end_the_flows_of_those_who_are_now_kept_out() {
    isolated(|| {
        let network = network();
        let forwards = args("--forward=tcp/80=10.96.3.7:80 --forward=udp/80=10.96.3.7:80");
        let to = with_port(at::POD[0], 80);
        let wide = Proxy::ready(&network.pod, &forwards);
        let flows = || {
            [at::CLIENT[0], at::CLIENT_2[0]].map(|from| {
                let udp = Datagrams::new(&network.client, from, &to);
                udp.ask(PATIENCE).unwrap();
                (tcp(&network.client, from, &to, PATIENCE).unwrap(), udp)
            })
        };
        let [(mut tcp_in, udp_in), (mut tcp_out, udp_out)] = flows();
        wide.kill();
        let tight = Proxy::ready(&network.pod, &[forwards, args("--source=192.0.2.2/32")].concat());
        tight.logs("ended flows");
        tcp_in.echoes().unwrap();
        udp_in.ask(PATIENCE).unwrap();
        udp_out.ask(IMPATIENCE).unwrap_err();
        tcp_out.set_patience(IMPATIENCE);
        tcp_out.echoes().unwrap_err();
    });
}

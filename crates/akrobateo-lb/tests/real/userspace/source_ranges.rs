//! Source ranges in the userspace path: allowed and denied clients.

use std::io::ErrorKind;

use super::{fetch_metrics, start_proxy, sum_metric};
use crate::harness::addr::{self, with_port};
use crate::harness::traffic::{
    NO_REPLY_TIMEOUT, REPLY_TIMEOUT, UdpClient, connect_tcp, serve_tcp, serve_udp,
};
use crate::harness::{Network, isolated};

#[test]
fn source_ranges_of_both_families_allow_only_their_clients() {
    isolated(|| {
        let network = Network::new();
        let mut arguments = vec!["--data-path=userspace".to_owned()];
        for ip in addr::BACKEND {
            let target = with_port(ip, 80);
            serve_tcp(&network.backend, &target);
            serve_udp(&network.backend, &target);
            arguments.extend([format!("--forward=tcp/80={target}"), format!("--forward=udp/80={target}")]);
        }
        arguments.push("--source=192.0.2.0/25 --source=192.0.2.200/32 --source=2001:db8:1::/113".to_owned());
        let _proxy = start_proxy(&network.pod, &arguments.join(" "));
        for (client, family_index, is_allowed) in [
            (addr::CLIENT[0], 0, true),
            (addr::CLIENT_2[0], 0, false),
            (addr::CLIENT_3[0], 0, true),
            (addr::CLIENT[1], 1, true),
            (addr::CLIENT_2[1], 1, false),
            (addr::CLIENT_3[1], 1, false),
        ] {
            let address = with_port(addr::POD[family_index], 80);
            let udp_client = UdpClient::new(&network.client, client, &address);
            if is_allowed {
                connect_tcp(&network.client, client, &address, REPLY_TIMEOUT).unwrap().check_echo().unwrap();
                udp_client.request(REPLY_TIMEOUT).unwrap();
            } else {
                let error = connect_tcp(&network.client, client, &address, REPLY_TIMEOUT).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{client}");
                udp_client.request(NO_REPLY_TIMEOUT).unwrap_err();
            }
        }
        let text = fetch_metrics(&network.pod);
        for (labels, expected_count) in
            [(["tcp", "IPv4"], 1), (["udp", "IPv4"], 1), (["tcp", "IPv6"], 2), (["udp", "IPv6"], 2)]
        {
            assert_eq!(
                sum_metric(&text, "akrobateo_lb_refused_connections_total", &labels),
                expected_count,
                "{labels:?}"
            );
        }
    });
}

#[test]
fn source_ranges_of_one_family_refuse_the_other_family() {
    isolated(|| {
        let network = Network::new();
        for ip in addr::BACKEND {
            serve_tcp(&network.backend, &with_port(ip, 80));
        }
        let _proxy = start_proxy(&network.pod, &format!("{} --source=::/0", super::FORWARD_ARGS));
        let connect = |family_index| {
            connect_tcp(
                &network.client,
                addr::CLIENT[family_index],
                &with_port(addr::POD[family_index], 80),
                REPLY_TIMEOUT,
            )
        };
        connect(1).unwrap();
        assert_eq!(connect(0).unwrap_err().kind(), ErrorKind::ConnectionReset);
    });
}

//! Source ranges: which clients are allowed.

use std::io::ErrorKind;

use super::{fetch_metrics, start_proxy, sum_metric};
use crate::harness::network::{at, with_port};
use crate::harness::traffic::{Datagrams, IMPATIENCE, PATIENCE, serve_tcp, serve_udp, tcp};
use crate::harness::{Network, isolated};

#[test]
fn source_ranges_of_both_families_allow_exactly_their_clients() {
    isolated(|| {
        let network = Network::new();
        let mut arguments = vec!["--data-path=userspace".to_owned()];
        for ip in at::BACKEND {
            let target = with_port(ip, 80);
            serve_tcp(&network.backend, &target);
            serve_udp(&network.backend, &target);
            arguments.extend([format!("--forward=tcp/80={target}"), format!("--forward=udp/80={target}")]);
        }
        arguments.push("--source=192.0.2.0/25 --source=192.0.2.200/32 --source=2001:db8:1::/113".to_owned());
        let _proxy = start_proxy(&network.pod, &arguments.join(" "));
        for (client, family, is_allowed) in [
            (at::CLIENT[0], 0, true),
            (at::CLIENT_2[0], 0, false),
            (at::CLIENT_3[0], 0, true),
            (at::CLIENT[1], 1, true),
            (at::CLIENT_2[1], 1, false),
            (at::CLIENT_3[1], 1, false),
        ] {
            let address = with_port(at::POD[family], 80);
            let udp = Datagrams::new(&network.client, client, &address);
            if is_allowed {
                tcp(&network.client, client, &address, PATIENCE).unwrap().echoes().unwrap();
                udp.ask(PATIENCE).unwrap();
            } else {
                let error = tcp(&network.client, client, &address, PATIENCE).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{client}");
                udp.ask(IMPATIENCE).unwrap_err();
            }
        }
        let text = fetch_metrics(&network.pod);
        for (labels, refused) in
            [(["tcp", "IPv4"], 1), (["udp", "IPv4"], 1), (["tcp", "IPv6"], 2), (["udp", "IPv6"], 2)]
        {
            assert_eq!(
                sum_metric(&text, "akrobateo_lb_refused_connections_total", &labels),
                refused,
                "{labels:?}"
            );
        }
    });
}

#[test]
fn source_ranges_of_one_family_refuse_the_other_family() {
    isolated(|| {
        let network = Network::new();
        for ip in at::BACKEND {
            serve_tcp(&network.backend, &with_port(ip, 80));
        }
        let _proxy = start_proxy(&network.pod, &format!("{} --source=::/0", super::FORWARD_ARGS));
        let connect =
            |family| tcp(&network.client, at::CLIENT[family], &with_port(at::POD[family], 80), PATIENCE);
        connect(1).unwrap();
        assert_eq!(connect(0).unwrap_err().kind(), ErrorKind::ConnectionReset);
    });
}

use super::*;
use crate::cli::fixtures::cluster;
use crate::cli::status::{format_rows, status_rows};
use crate::decide::decide;
use crate::decide::fixtures::{key, node, pod, proxy_config, service};

#[test]
fn explanation_gives_the_reason_for_each_node_without_a_proxy() {
    let nodes = [
        node("n1").internal_ip("10.0.0.1").label("pool", "edge").build(),
        node("n2").internal_ip("10.0.0.2").label("pool", "edge").label("zone", "b").build(),
        node("n3").internal_ip("10.0.0.3").build(),
    ];
    let old_service =
        service("old").tcp(80).created_at(1).annotation("akrobateo.io/node-selector", "zone=b").build();
    let web_service =
        service("web").tcp(80).created_at(2).annotation("akrobateo.io/node-selector", "pool=edge");
    let web_service = web_service.published("10.0.0.1", "VIP", "akrobateo").build();
    let cluster = cluster(vec![old_service, web_service], &nodes, vec![pod("a").on("n1").ready().build()]);
    let explanation = explain(&cluster, &key("web")).unwrap();
    let reasons: Vec<_> = explanation.nodes.iter().map(|node| node.why.as_str()).collect();
    assert_eq!(
        reasons,
        [
            "",
            "80/TCP belongs to default/old",
            "not selected: its labels do not match, or the proxies do not tolerate one of its taints"
        ]
    );
    let text = explanation.format(Style::Plain);
    for part in [
        "default/web: PartlyExposed, 1 of 1 proxies ready",
        "DaemonSet akrobateo-proxies/akrobateo-default-web-ca4088a856",
        "n1     ready   yes",
        "80/TCP   default/old   n2      default/web",
        "Pending actions of the operator\n  apply DaemonSet akrobateo-proxies/akrobateo-default-web-ca4088a856\n",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
    assert!(!text.contains('\x1b'));
    assert!(!explanation.is_failing());
}

#[test]
fn explanation_and_status_name_outdated_proxies() {
    let nodes = [
        node("n1").internal_ip("10.0.0.1").build(),
        node("n2").internal_ip("10.0.0.2").with_ready_unknown().build(),
    ];
    let pods = || ["n1", "n2"].map(|name| pod(name).on(name).ready().build()).into();
    let web = || vec![service("web").tcp(80).published("10.0.0.1", "VIP", "akrobateo").build()];
    let desired = cluster(web(), &nodes, pods()).reports.remove(0).decision.proxy;
    let ProxyDecision::RunWorkload(workload) = desired else { panic!("no workload") };
    let mut cluster = cluster(web(), &nodes, pods());
    let report = &mut cluster.reports[0];
    report.state.workloads.push(workload);
    report.decision = decide(&proxy_config(), &report.state, cluster.now);
    let text = explain(&cluster, &key("web")).unwrap().format(Style::Plain);
    for part in [
        "2 of 2 proxies ready, 2 outdated",
        "the proxy forwards as before the last change: it is replaced soon",
        "its proxy is replaced when the node is back",
        "replace the proxy pod n1 on node n1",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
    let rows = status_rows(&cluster, None);
    assert!(format_rows(&rows, Style::Plain).contains("2/2 (2 outdated)"));
    assert_eq!(serde_json::to_value(&rows).unwrap()[0]["outdated"], 2);
}

#[test]
fn explanation_of_a_rejected_service_lists_the_allowed_values() {
    let web_service = service("web").tcp(80).annotation("akrobateo.io/ip-mode", "none").build();
    let cluster = cluster(vec![web_service], &[node("n1").build()], Vec::new());
    let explanation = explain(&cluster, &key("web")).unwrap();
    assert!(explanation.is_failing());
    let text = explanation.format(Style::Plain);
    assert!(text.contains("InvalidAnnotation") && text.contains("VIP, Proxy"), "{text}");
}

#[test]
fn error_names_the_missing_service() {
    let error = explain(&cluster(Vec::new(), &[], Vec::new()), &key("web")).unwrap_err();
    assert!(error.to_string().contains("Service default/web not found"), "{error}");
}

#[test]
fn explanation_names_the_owner_of_a_conflicting_node_port() {
    let api = service("api").tcp(8080).service_type("NodePort").node_port(30080).build();
    let web_service = service("web").tcp(30080).build();
    let cluster = cluster(vec![api, web_service], &[node("n1").build()], Vec::new());
    let text = explain(&cluster, &key("web")).unwrap().format(Style::Plain);
    assert!(text.contains("30080/TCP   default/api (nodePort)   all     default/web"), "{text}");
}

#[test]
fn explanation_names_an_invalid_annotation_of_a_node_and_a_missing_endpoint() {
    let nodes = [
        node("n1").internal_ip("10.0.0.1").annotation("akrobateo.io/address", "oops").build(),
        node("n2").internal_ip("10.0.0.2").build(),
    ];
    let web =
        service("web").tcp(80).annotation("akrobateo.io/ip-mode", "Proxy").internal_traffic_policy_local();
    let pods = ["n1", "n2"].map(|name| pod(name).on(name).ready().build()).into();
    let cluster = cluster(vec![web.build()], &nodes, pods);
    let text = explain(&cluster, &key("web")).unwrap().format(Style::Plain);
    for part in
        ["akrobateo.io/address of node n1 is \"oops\"", "internalTrafficPolicy is Local and the node has no"]
    {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
}

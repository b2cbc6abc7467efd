use super::*;
use crate::cli::fixtures::cluster;
use crate::decide::fixtures::{key, node, pod, service};

#[test]
fn each_node_says_why_it_has_no_proxy() {
    let nodes = [
        node("n1").internal("10.0.0.1").label("pool", "edge").build(),
        node("n2").internal("10.0.0.2").label("pool", "edge").label("zone", "b").build(),
        node("n3").internal("10.0.0.3").build(),
    ];
    let old = service("old").tcp(80).created(1).annotation("akrobateo.io/node-selector", "zone=b").build();
    let web = service("web").tcp(80).created(2).annotation("akrobateo.io/node-selector", "pool=edge");
    let web = web.published("10.0.0.1", "VIP", "akrobateo").build();
    let cluster = cluster(vec![old, web], &nodes, vec![pod("a").on("n1").ready().build()]);
    let explanation = explain(&cluster, &key("web")).unwrap();
    let whys: Vec<_> = explanation.nodes.iter().map(|node| node.why.as_str()).collect();
    assert_eq!(
        whys,
        ["", "80/TCP belongs to default/old", "not chosen: its labels, or a taint that is not tolerated"]
    );
    let text = explanation.text(Style(false));
    for part in [
        "default/web: PartlyExposed, 1 of 1 proxies ready",
        "DaemonSet kube-system/akrobateo-default-web",
        "n1     ready   yes",
        "80/TCP   default/old   n2      default/web",
        "The operator has still to\n  apply DaemonSet kube-system/akrobateo-default-web\n",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
    assert!(!text.contains('\x1b'));
    assert!(!explanation.is_trouble());
}

#[test]
fn a_refused_service_says_what_is_allowed() {
    let web = service("web").tcp(80).annotation("akrobateo.io/ip-mode", "none").build();
    let cluster = cluster(vec![web], &[node("n1").build()], Vec::new());
    let explanation = explain(&cluster, &key("web")).unwrap();
    assert!(explanation.is_trouble());
    let text = explanation.text(Style(false));
    assert!(text.contains("InvalidAnnotation") && text.contains("VIP, Proxy"), "{text}");
}

#[test]
fn a_service_that_is_not_there_is_named() {
    let error = explain(&cluster(Vec::new(), &[], Vec::new()), &key("web")).unwrap_err();
    assert_eq!(error.to_string(), "there is no Service default/web");
}

#[test]
fn a_nodeport_in_the_way_is_named_with_its_owner() {
    let api = service("api").tcp(8080).service_type("NodePort").node_port(30080).build();
    let web = service("web").tcp(30080).build();
    let cluster = cluster(vec![api, web], &[node("n1").build()], Vec::new());
    let text = explain(&cluster, &key("web")).unwrap().text(Style(false));
    assert!(text.contains("30080/TCP   default/api (nodePort)   all     default/web"), "{text}");
}

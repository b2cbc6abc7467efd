use k8s_openapi::api::core::v1::{Node, Pod, Service};

use super::*;
use crate::cli::fixtures::cluster;
use crate::decide::fixtures::{node, pod, service};

fn nodes() -> Vec<Node> {
    ["n1", "n2"].map(|name| node(name).internal(&format!("10.0.0.{}", &name[1..])).build()).into()
}

fn rows_of(services: Vec<Service>, pods: Vec<Pod>) -> Vec<Row> {
    rows(&cluster(services, &nodes(), pods), None)
}

#[test]
fn a_service_that_answers_is_a_line_with_its_addresses() {
    let web = service("web").tcp(80).published("10.0.0.1", "VIP", "akrobateo").build();
    let rows = rows_of(vec![web], vec![pod("a").on("n1").ready().build(), pod("b").on("n2").build()]);
    assert_eq!(
        text(&rows, Style(false)),
        "NAMESPACE   NAME   CLASS   PORTS    READY   ADDRESSES   STATE     WHY\n\
         default     web    -       80/TCP   1/2     10.0.0.1    Exposed\n"
    );
    assert!(!rows[0].is_trouble());
}

#[test]
fn a_port_conflict_is_trouble_and_is_explained() {
    let old = service("old").tcp(80).created(1).build();
    let young = service("young").tcp(80).created(2).build();
    let rows = rows_of(vec![young, old], Vec::new());
    let young = rows.iter().find(|row| row.name == "young").unwrap();
    assert!(young.is_trouble());
    assert_eq!(young.reason.as_deref(), Some("PortConflict"));
    assert!(young.message.as_ref().unwrap().contains("belongs to Service default/old"));
    assert_eq!((young.ready, young.wanted), (0, 0));
}

#[test]
fn another_class_is_shown_and_is_no_trouble_of_ours() {
    let rows = rows_of(vec![service("web").tcp(80).class("example.com/lb").build()], Vec::new());
    assert!(!rows[0].is_trouble());
    let text = text(&rows, Style(false));
    assert!(text.contains("NotServed") && text.contains("another implementation"), "{text}");
}

#[test]
fn an_operator_that_publishes_nothing_is_suspected() {
    let rows = rows_of(vec![service("web").tcp(80).build()], vec![pod("a").on("n1").ready().build()]);
    assert!(rows[0].is_trouble());
    assert!(rows[0].message.as_ref().unwrap().contains("does it run?"));
}

#[test]
fn other_types_and_other_namespaces_are_left_out() {
    let cluster = cluster(
        vec![service("inner").tcp(80).service_type("ClusterIP").build(), service("web").tcp(80).build()],
        &nodes(),
        Vec::new(),
    );
    assert_eq!(rows(&cluster, None).len(), 1);
    assert!(rows(&cluster, Some("shop")).is_empty());
    assert_eq!(text(&[], Style(false)), "no Services of type LoadBalancer\n");
}

#[test]
fn json_has_every_address() {
    let rows = rows_of(vec![service("web").tcp(80).build()], Vec::new());
    let json = serde_json::to_value(&rows).unwrap();
    assert_eq!(json[0]["name"], "web");
    assert_eq!(json[0]["wanted"], 2);
    assert_eq!(json[0]["addresses"], serde_json::json!([]));
    let many = ["a", "b", "c", "d", "e"].map(str::to_owned);
    assert_eq!(shortened(&many), "a,b,c,+2");
}

use k8s_openapi::api::core::v1::{Node, Pod, Service};

use super::*;
use crate::cli::fixtures::cluster;
use crate::decide::fixtures::{node, pod, service};

fn nodes() -> Vec<Node> {
    ["n1", "n2"].map(|name| node(name).internal_ip(&format!("10.0.0.{}", &name[1..])).build()).into()
}

fn status_rows_in_test_cluster(services: Vec<Service>, pods: Vec<Pod>) -> Vec<StatusRow> {
    status_rows(&cluster(services, &nodes(), pods), None)
}

#[test]
fn status_shows_an_exposed_service_with_its_addresses() {
    let web = service("web").tcp(80).published("10.0.0.1", "VIP", "akrobateo").build();
    let rows = status_rows_in_test_cluster(
        vec![web],
        vec![pod("a").on("n1").ready().build(), pod("b").on("n2").build()],
    );
    assert_eq!(
        format_rows(&rows, Style::Plain),
        "NAMESPACE   NAME   CLASS   PORTS    READY   ADDRESSES   STATE           WHY\n\
         default     web    -       80/TCP   1/2     10.0.0.1    PartlyExposed   not published: node n2 (its proxy is not ready)\n"
    );
    assert_eq!(rows[0].health(), Health::Healthy);
}

#[test]
fn status_of_a_service_with_a_port_conflict_mentions_the_owner() {
    let old_service = service("old").tcp(80).created_at(1).build();
    let young_service = service("young").tcp(80).created_at(2).build();
    let rows = status_rows_in_test_cluster(vec![young_service, old_service], Vec::new());
    let young_row = rows.iter().find(|row| row.name == "young").unwrap();
    assert!(young_row.is_failing());
    assert_eq!(young_row.reason.as_deref(), Some("PortConflict"));
    assert!(young_row.message.as_ref().unwrap().contains("default/old"));
    assert_eq!((young_row.ready_proxy_count, young_row.desired_proxy_count), (0, 0));
}

#[test]
fn service_of_another_class_is_shown_as_not_served() {
    let rows =
        status_rows_in_test_cluster(vec![service("web").tcp(80).class("example.com/lb").build()], Vec::new());
    assert_eq!(rows[0].health(), Health::NotApplicable);
    let text = format_rows(&rows, Style::Plain);
    assert!(text.contains("NotServed") && text.contains("example.com/lb"), "{text}");
}

#[test]
fn service_with_ready_proxies_but_no_address_is_failing() {
    let rows = status_rows_in_test_cluster(
        vec![service("web").tcp(80).build()],
        vec![pod("a").on("n1").ready().build()],
    );
    assert!(rows[0].is_failing());
    assert!(rows[0].message.as_ref().unwrap().contains("check that the operator runs"));
}

#[test]
fn status_omits_services_of_other_types_and_other_namespaces() {
    let cluster = cluster(
        vec![service("inner").tcp(80).service_type("ClusterIP").build(), service("web").tcp(80).build()],
        &nodes(),
        Vec::new(),
    );
    assert_eq!(status_rows(&cluster, None).len(), 1);
    assert!(status_rows(&cluster, Some("shop")).is_empty());
    assert_eq!(format_rows(&[], Style::Plain), "no Services of type LoadBalancer\n");
}

#[test]
fn json_output_has_the_documented_keys() {
    let rows = status_rows_in_test_cluster(vec![service("web").tcp(80).build()], Vec::new());
    let json = serde_json::to_value(&rows).unwrap();
    assert_eq!(json[0]["name"], "web");
    assert_eq!(json[0]["wanted"], 2);
    assert_eq!(json[0]["ours"], true);
    assert_eq!(json[0]["addresses"], serde_json::json!([]));
}

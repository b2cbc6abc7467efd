use std::collections::{BTreeMap, BTreeSet};

use akrobateo_core::{HostPort, Protocol, annotations};
use akrobateo_services::agent_report::PortOwner;
use akrobateo_services::allocation::{Conflict, ConflictScope};

use super::*;
use crate::cli::fixtures::{cluster, cluster_with_defaults};
use crate::cli::status::{format_rows, status_rows};
use crate::decide::fixtures::{
    PodBuilder, ServiceBuilder, agent, defaults, key, node, pod, port_problem, proxy_config, service,
};
use crate::decide::{AgentState, decide};

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
            "not selected: its labels do not match, or one of its taints is not tolerated"
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
    let node = serde_json::json!({
        "name": "n1", "shouldHaveProxy": true, "ready": true, "state": "ready", "published": true, "why": "",
    });
    assert_eq!(serde_json::to_value(&explanation).unwrap()["nodes"][0], node);
}

#[test]
fn explanation_and_status_mention_outdated_proxies() {
    let nodes = [
        node("n1").internal_ip("10.0.0.1").build(),
        node("n2").internal_ip("10.0.0.2").with_ready_unknown().build(),
    ];
    let pods = || ["n1", "n2"].map(|name| pod(name).on(name).ready().build()).into();
    let web = || vec![service("web").tcp(80).published("10.0.0.1", "VIP", "akrobateo").build()];
    let desired = cluster(web(), &nodes, pods()).service_reports.remove(0).decision.proxy;
    let ProxyDecision::RunWorkload(workload) = desired else { panic!("no workload") };
    let mut cluster = cluster(web(), &nodes, pods());
    let report = &mut cluster.service_reports[0];
    report.state.workloads.push(workload);
    report.decision = decide(&proxy_config(), &report.state, cluster.now);
    let text = explain(&cluster, &key("web")).unwrap().format(Style::Plain);
    for part in [
        "2 of 2 proxies ready, 2 outdated",
        "the proxy still forwards with the previous configuration: it is replaced soon",
        "its proxy is replaced when the node is Ready again",
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
fn error_mentions_the_missing_service() {
    let error = explain(&cluster(Vec::new(), &[], Vec::new()), &key("web")).unwrap_err();
    assert!(error.to_string().contains("Service default/web not found"), "{error}");
}

#[test]
fn explanation_mentions_the_owner_of_a_conflicting_node_port() {
    let api = service("api").tcp(8080).service_type("NodePort").node_port(30080).build();
    let web_service = service("web").tcp(30080).build();
    let cluster = cluster(vec![api, web_service], &[node("n1").build()], Vec::new());
    let text = explain(&cluster, &key("web")).unwrap().format(Style::Plain);
    assert!(text.contains("30080/TCP   default/api (nodePort)   all     default/web"), "{text}");
}

#[test]
fn explanation_mentions_the_node_on_which_another_service_has_the_port() {
    let web_service = service("web").tcp(80).annotation(annotations::NODE_SELECTOR, "name=n1").build();
    let nodes = ["n1", "n2"].map(|name| node(name).label("name", name).build());
    let mut cluster = cluster(vec![web_service], &nodes, Vec::new());
    // The agents serve the other Service, which is rejected. The report about this Service does not list its nodes.
    let report = &mut cluster.service_reports[0];
    let Some(AllocationResult::Accepted(_, allocation)) = &mut report.state.allocation_result else {
        panic!("not accepted")
    };
    allocation.owned_nodes = Some(BTreeSet::new());
    allocation.conflicts = vec![Conflict {
        port: HostPort { protocol: Protocol::Tcp, port: 80 },
        owner: key("rejected"),
        scope: ConflictScope::Node("n1".to_owned()),
    }];
    let text = explain(&cluster, &key("web")).unwrap().format(Style::Plain);
    assert!(text.contains("80/TCP   default/rejected   n1      default/web\n"), "{text}");
}

#[test]
fn explanation_mentions_an_invalid_annotation_of_a_node_and_a_missing_endpoint() {
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

/// Returns the explanation of Service `default/web`, which has a pod on node `n1`. Another Service has port 443, and
/// port 22 is reserved.
fn explain_web(web: ServiceBuilder, web_pod: PodBuilder) -> String {
    explain_web_on_nodes(&["n1"], web, web_pod)
}

/// Returns the explanation of [`explain_web`] in a cluster with these nodes.
fn explain_web_on_nodes(nodes: &[&str], web: ServiceBuilder, web_pod: PodBuilder) -> String {
    let nodes: Vec<_> =
        nodes.iter().map(|name| node(name).internal_ip(&format!("10.0.0.{}", &name[1..])).build()).collect();
    let services = vec![service("old").tcp(443).created_at(1).build(), web.created_at(2).build()];
    let mut defaults = defaults();
    defaults.reserved_ports = "22".parse().unwrap();
    let cluster = cluster_with_defaults(defaults, services, &nodes, vec![web_pod.on("n1").build()]);
    explain(&cluster, &key("web")).unwrap().format(Style::Plain)
}

#[test]
fn explanation_shows_every_reason_of_the_condition() {
    let web = || service("web").tcp(80);
    let published_web = || web().published("10.0.0.1", "VIP", "akrobateo");
    let (ready_pod, starting_pod) = (|| pod("a").ready(), || pod("a"));
    let scheduling_failure =
        "0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports.";
    let examples = [
        (Reason::Exposed, explain_web(published_web(), ready_pod())),
        (Reason::PartlyExposed, explain_web_on_nodes(&["n1", "n2"], published_web(), ready_pod())),
        (Reason::ProxiesNotReady, explain_web(web(), starting_pod())),
        (Reason::AgentsNotReady, explain_web(web().annotation(annotations::WORKLOAD, "Shared"), ready_pod())),
        (
            Reason::NoAddresses,
            explain_web(web().annotation(annotations::ADDRESS_TYPES, "ExternalIP"), ready_pod()),
        ),
        (
            Reason::NoNodes,
            explain_web(web().annotation(annotations::NODE_SELECTOR, "pool=edge"), ready_pod()),
        ),
        (Reason::NoEndpoints, explain_web(web().traffic_policy_local(), ready_pod())),
        (Reason::PortConflict, explain_web(service("web").tcp(443), ready_pod())),
        (Reason::PortReserved, explain_web(service("web").tcp(22), ready_pod())),
        (Reason::PortInUse, explain_web(web(), pod("a").unscheduled(scheduling_failure))),
        (Reason::InvalidAnnotation, explain_web(web().annotation(annotations::IP_MODE, "none"), ready_pod())),
        (Reason::UnsupportedSpec, explain_web(service("web"), ready_pod())),
    ];
    for (reason, text) in &examples {
        assert!(text.starts_with(&format!("default/web: {reason}, ")), "{reason} is not in\n{text}");
        assert!(text.lines().nth(1).is_some_and(|line| line.starts_with("  ")), "{text}");
    }
    let explained_reasons: Vec<_> = examples.into_iter().map(|(reason, _)| reason).collect();
    let condition_reasons: Vec<_> =
        Reason::ALL.into_iter().filter(|reason| reason.is_condition_reason()).collect();
    assert_eq!(explained_reasons, condition_reasons, "each reason needs an example");
}

#[test]
fn explanation_shows_warnings_and_their_messages() {
    let web = service("web").tcp(80).node_port(30080).source_ranges(&["10.0.0.0/8"]).session_affinity();
    let web = web.traffic_policy_local().annotation(annotations::IP_MODE, "Proxy");
    let text = explain_web(web.published("10.0.0.1", "Proxy", "akrobateo"), pod("a").ready());
    let warnings = "  warnings   ClientAddressNotKept, NodePortsOpen, SessionAffinityNotKept\n";
    for part in
        [warnings, "30080", "sessionAffinity is ClientIP", "externalTrafficPolicy is Local, but backends see"]
    {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
}

fn set_agents<const COUNT: usize>(report: &mut ServiceReport, agents: [AgentState; COUNT]) {
    let agents = agents.map(|agent| (agent.observed_report.report.node.clone(), agent));
    report.state.agents = BTreeMap::from(agents).into();
}

#[test]
fn explanation_of_a_shared_service_mentions_processes_and_host_ports() {
    let nodes = ["n1", "n2", "n3", "n4"];
    let nodes = nodes.map(|name| node(name).internal_ip(&format!("10.0.0.{}", &name[1..])).build());
    let web = service("web").tcp(80).annotation(annotations::WORKLOAD, "Shared");
    let mut cluster = cluster(vec![web.build()], &nodes, Vec::new());
    let sharing_agent = agent("n1")
        .with_changed_report(|report| report.doubly_used_ports = vec![port_problem(PortOwner::Process)]);
    let pod = PortOwner::Pod("shop/ingress".to_owned());
    let agents = [sharing_agent, agent("n2").refusing(pod), agent("n3").refusing(PortOwner::Process)];
    let report = &mut cluster.service_reports[0];
    set_agents(report, agents);
    report.decision = decide(&proxy_config(), &report.state, cluster.now);
    let text = explain(&cluster, &key("web")).unwrap().format(Style::Plain);
    for part in [
        "default/web: PartlyExposed, 1 of 4 nodes ready",
        "endpoints  no node has a ready endpoint",
        "mode       Shared: the node agents forward",
        "NODE   AGENT       PUBLISHED",
        "n1     ready       no          a process of node n1 listens on port 80/TCP\n",
        "n2     refuses     no          port 80/TCP on node n2 is a hostPort of pod shop/ingress\n",
        "n3     refuses     no          a process of node n3 listens on port 80/TCP\n",
        "n4     not ready   no          the node has no node agent\n",
        "80/TCP   default/web             n1",
        "80/TCP   pod shop/ingress        n2      default/web\n",
        "80/TCP   a process of the node   n3      default/web\n",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
    let row = serde_json::to_value(status_rows(&cluster, None)).unwrap();
    assert_eq!((&row[0]["mode"], &row[0]["ready"]), (&serde_json::json!("Shared"), &serde_json::json!(1)));
}

#[test]
fn only_nodes_with_an_endpoint_are_ready_with_traffic_policy_local() {
    let nodes = ["n1", "n2"].map(|name| node(name).internal_ip(&format!("10.0.0.{}", &name[1..])).build());
    let web = service("web").tcp(80).annotation(annotations::WORKLOAD, "Shared").traffic_policy_local();
    let mut cluster = cluster(vec![web.build()], &nodes, Vec::new());
    let report = &mut cluster.service_reports[0];
    set_agents(report, ["n1", "n2"].map(agent));
    let text = explain(&cluster, &key("web")).unwrap().format(Style::Plain);
    for part in [
        "0 of 2 nodes ready",
        "endpoints  no node has a ready endpoint",
        "n2     not ready   no          externalTrafficPolicy is Local and the node has no ready endpoint",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
    // The refusal of an agent is the more important reason.
    let process = agent("n2").refusing(PortOwner::Process);
    set_agents(&mut cluster.service_reports[0], [agent("n1"), process]);
    let text = explain(&cluster, &key("web")).unwrap().format(Style::Plain);
    assert!(
        text.contains("n2     refuses     no          a process of node n2 listens on port 80/TCP\n"),
        "{text}"
    );
    set_agents(&mut cluster.service_reports[0], ["n1", "n2"].map(agent));
    cluster.service_reports[0].state.nodes_with_ready_endpoint = BTreeSet::from(["n1".to_owned()]);
    let text = explain(&cluster, &key("web")).unwrap().format(Style::Plain);
    for part in [
        "1 of 1 nodes ready",
        "endpoints  ready on n1",
        "n1     ready",
        "n2     -       no          externalTrafficPolicy is Local and the node has no ready endpoint",
        "80/TCP   default/web   n1",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
}

#[test]
fn refused_node_port_belongs_to_its_owner_on_all_nodes() {
    let api = service("api").tcp(8080).service_type("NodePort").node_port(30080).build();
    let web = service("web").tcp(30080).annotation(annotations::WORKLOAD, "Shared").build();
    let mut cluster = cluster(vec![api, web], &["n1", "n2"].map(|name| node(name).build()), Vec::new());
    let report = cluster.service_reports.iter_mut().find(|report| report.key == key("web")).unwrap();
    let owner = PortOwner::Service("default/api".to_owned());
    let refusing_agent = agent("n1").with_changed_report(|report| {
        report.refused_ports = vec![PortProblem { port: "30080/TCP".to_owned(), ..port_problem(owner) }];
    });
    set_agents(report, [refusing_agent]);
    report.decision = decide(&proxy_config(), &report.state, cluster.now);
    let text = explain(&cluster, &key("web")).unwrap().format(Style::Plain);
    for part in [
        "port 30080/TCP is the nodePort of Service default/api; use other ports\n",
        "30080/TCP   default/api (nodePort)   all",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
}

#[test]
fn rejected_service_shows_the_agents_that_keep_its_settings() {
    let nodes = ["n1", "n2", "n3"];
    let nodes = nodes.map(|name| node(name).internal_ip(&format!("10.0.0.{}", &name[1..])).build());
    let web = service("web").tcp(80).annotation(annotations::WORKLOAD, "Shared");
    let web = ["10.0.0.1", "10.0.0.2"].iter().fold(web, |web, ip| web.published(ip, "Proxy", "akrobateo"));
    let mut cluster = cluster(vec![web.annotation(annotations::IP_MODE, "typo").build()], &nodes, Vec::new());
    let unaware_agent =
        agent("n2").with_changed_report(|report| report.unserved_services = vec!["default/web".to_owned()]);
    let report = &mut cluster.service_reports[0];
    set_agents(report, [agent("n1"), unaware_agent, agent("n3")]);
    report.decision = decide(&proxy_config(), &report.state, cluster.now);
    let text = explain(&cluster, &key("web")).unwrap().format(Style::Plain);
    for part in [
        "default/web: InvalidAnnotation, 1 of 2 nodes ready",
        "n1     ready       yes         the node agent keeps the previous settings",
        "n2     not ready   yes         the node agent does not serve the Service",
        "n3     -           no          the Service is rejected",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
}

#[test]
fn agent_serves_a_published_service_before_it_reports_the_newest_version() {
    let nodes = ["n1", "n2"].map(|name| node(name).internal_ip(&format!("10.0.0.{}", &name[1..])).build());
    let web = service("web").tcp(80).annotation(annotations::WORKLOAD, "Shared");
    let web = web.published("10.0.0.1", "Proxy", "akrobateo");
    let mut cluster = cluster(vec![web.build()], &nodes, Vec::new());
    let report = &mut cluster.service_reports[0];
    report.state.version.version = 7;
    let outdated_agent = |node: &str| {
        agent(node).with_changed_report(|report| report.applied_versions.as_mut().unwrap().services = 6)
    };
    set_agents(report, ["n1", "n2"].map(outdated_agent));
    report.decision = decide(&proxy_config(), &report.state, cluster.now);
    let text = explain(&cluster, &key("web")).unwrap().format(Style::Plain);
    for part in ["1 of 2 nodes ready", "n1     ready       yes", "n2     not ready   no"] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
}

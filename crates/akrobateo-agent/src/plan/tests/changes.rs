//! Tests that a change of one Service does not cause work for all Services, and that the changed plan is the same as a
//! new plan.

use super::*;

/// Returns a slice with an endpoint on each node. An address always belongs to the same node.
fn slice(nodes: &[&str]) -> Vec<Arc<EndpointSlice>> {
    let endpoints: Vec<_> = nodes
        .iter()
        .enumerate()
        .map(|(number, node)| json!({ "addresses": [format!("10.244.{}.{number}", &node[1..])], "nodeName": node }))
        .collect();
    let slice = json!({ "addressType": "IPv4", "ports": [{ "port": 8080 }], "endpoints": endpoints });
    vec![Arc::new(serde_json::from_value(slice).unwrap())]
}

impl TestCluster {
    /// Changes the endpoints of a Service in the plan. Returns the result of the planner. If the planner has changed
    /// the plan, checks that a new plan is the same.
    fn change_endpoints(&mut self, plan: &mut Plan, name: &str, nodes: &[&str]) -> Option<bool> {
        self.change_slices(plan, name, &slice(nodes))
    }

    /// Changes the slices of a Service in the plan, with the same result and checks as [`Self::change_endpoints`].
    pub(super) fn change_slices(
        &mut self,
        plan: &mut Plan,
        name: &str,
        slices: &[Arc<EndpointSlice>],
    ) -> Option<bool> {
        self.slices.insert(key(name), slices.to_vec());
        let has_changed = self.planner.update_endpoints(plan, &key(name), slices, self.now);
        if has_changed.is_some() {
            let new_plan = self.plan();
            assert_eq!(plan.config, new_plan.config);
            assert_eq!(plan.nodes_without_agent, new_plan.nodes_without_agent);
            assert_eq!(plan.next_plan_at, new_plan.next_plan_at);
        }
        has_changed
    }
}

#[test]
fn endpoint_change_changes_only_its_service_in_the_plan() {
    let mut cluster = TestCluster::new();
    for (name, port) in [("a", 80), ("b", 81), ("c-d", 82), ("c", 83)] {
        cluster.apply(service(name).tcp(port));
    }
    for (name, port) in [("a-elsewhere", 84), ("d-elsewhere", 85)] {
        cluster.apply(service(name).tcp(port).annotation(NODE_SELECTOR, "pool=edge"));
    }
    let mut plan = cluster.plan();
    let validations = cluster.planner.services.parse_count;
    assert_eq!(cluster.change_endpoints(&mut plan, "b", &["n1"]), Some(true));
    assert_eq!(plan.config.services[1].ports[0].endpoints.len(), 1);
    assert_eq!(cluster.change_endpoints(&mut plan, "b", &["n1"]), Some(false));
    assert_eq!(cluster.change_endpoints(&mut plan, "c", &["n2", "n1"]), Some(true));
    assert_eq!(plan.nodes_without_agent, ["n2".to_owned()].into());
    assert_eq!(cluster.change_endpoints(&mut plan, "c", &[]), Some(true));
    assert!(plan.nodes_without_agent.is_empty());
    // The configuration contains Services of other nodes only if they have endpoints on this node.
    for name in ["d-elsewhere", "a-elsewhere"] {
        assert_eq!(cluster.change_endpoints(&mut plan, name, &["n2"]), Some(false));
        assert_eq!(cluster.change_endpoints(&mut plan, name, &["n1", "n2"]), Some(true));
    }
    assert_eq!(plan.config.services.len(), 6);
    assert_eq!(cluster.change_endpoints(&mut plan, "d-elsewhere", &[]), Some(true));
    assert_eq!(cluster.change_endpoints(&mut plan, "absent", &["n1"]), Some(false));
    assert_eq!(cluster.planner.services.parse_count, validations);
}

#[test]
fn endpoint_change_of_a_contested_port_needs_a_new_plan() {
    let mut cluster = TestCluster::new();
    cluster.apply(service("alone").tcp(81).traffic_policy_local());
    for name in ["a", "b"] {
        cluster.apply(service(name).tcp(80).traffic_policy_local());
    }
    let mut plan = cluster.plan();
    assert_eq!(cluster.change_endpoints(&mut plan, "alone", &["n1"]), Some(true));
    assert_eq!(cluster.change_endpoints(&mut plan, "alone", &[]), Some(true));
    assert!(plan.next_plan_at.is_some());
    assert_eq!(cluster.change_endpoints(&mut plan, "b", &["n1"]), None);
    let mut plan = cluster.plan();
    assert_eq!(cluster.change_endpoints(&mut plan, "b", &["n1", "n1"]), Some(true));
}

#[test]
fn only_changes_that_the_plan_reads_need_a_new_plan() {
    let mut cluster = TestCluster::new();
    cluster.apply(service("web").tcp(80));
    cluster.apply(service("contested").tcp(81));
    cluster.apply(service("other").tcp(81));
    assert!(cluster.update_services());
    cluster.plan();
    assert!(!cluster.update_services());
    // The operator publishes each Service on each node. This must not cause plans on all nodes.
    cluster.apply(service("web").tcp(80).published("10.0.0.1", "Proxy", "akrobateo"));
    assert!(!cluster.update_services());
    cluster.apply(service("contested").tcp(81).published("10.0.0.1", "Proxy", "akrobateo"));
    assert!(cluster.update_services());
    let validations = cluster.planner.services.parse_count;
    cluster.apply(service("web").tcp(82));
    assert!(cluster.update_services());
    assert_eq!(cluster.planner.services.parse_count, validations + 1);
    let rejected_service = || service("web").tcp(82).annotation(IP_MODE, "typo");
    cluster.apply(rejected_service());
    cluster.plan();
    cluster.apply(rejected_service().published("10.0.0.1", "Proxy", "akrobateo"));
    assert!(cluster.update_services());
}

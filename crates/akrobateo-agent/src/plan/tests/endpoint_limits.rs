//! Tests of the limit for the endpoints of all Services.

use super::*;
use crate::plan::endpoint_limits::{MAX_ENDPOINTS_OF_NODE, count_endpoints};

fn slices_with_endpoints(count: usize) -> Vec<Arc<EndpointSlice>> {
    let endpoint = |index: usize| json!({ "addresses": [format!("10.1.{}.{}", index / 250, index % 250)] });
    let slice = json!({
        "addressType": "IPv4", "ports": [{ "port": 8080 }],
        "endpoints": (0..count).map(endpoint).collect::<Vec<_>>(),
    });
    vec![Arc::new(serde_json::from_value(slice).unwrap())]
}

#[test]
fn plan_has_a_limited_number_of_endpoints() {
    let mut cluster = TestCluster::new();
    let slices = slices_with_endpoints(9_000);
    for port in 1..=6 {
        cluster.apply(service(&format!("web-{port}")).tcp(port));
    }
    for port in 1..=5 {
        cluster.slices.insert(key(&format!("web-{port}")), slices.clone());
    }
    cluster.apply(service("small").tcp(80));
    cluster.set_endpoint("small", "n1");
    let mut plan = cluster.plan();
    assert_eq!(count_endpoints(&plan.config.services), 45_001);
    // One more Service exceeds the limit, so all Services must be planned again.
    let (added, now) = (key("web-6"), cluster.now);
    assert_eq!(cluster.planner.update_endpoints(&mut plan, &added, &slices, now), None);
    cluster.slices.insert(added, slices.clone());
    let mut plan = cluster.plan();
    let count = count_endpoints(&plan.config.services);
    assert!((MAX_ENDPOINTS_OF_NODE - 10..=MAX_ENDPOINTS_OF_NODE).contains(&count), "{count}");
    let small = plan.config.services.iter().find(|service| service.name == "default/small");
    assert_eq!(small.unwrap().ports[0].endpoints.len(), 1);
    // A later change of a large Service stays within the limit, and needs no new plan.
    let slices = slices_with_endpoints(9_500);
    assert!(cluster.planner.update_endpoints(&mut plan, &key("web-6"), &slices, now).is_some());
    assert!(count_endpoints(&plan.config.services) <= MAX_ENDPOINTS_OF_NODE);
}

//! The reason why ipMode VIP is dangerous, as the detection reports it.

use std::sync::Arc;

use akrobateo_services::node_info::NodeInfo;
use akrobateo_services::spec::ServiceDefaults;
use tokio::sync::watch;

/// Reads the last result of the detection. K3s and RKE2 show the arguments of kube-proxy only in the annotations of
/// their nodes.
pub(super) fn update_vip_danger(
    defaults: &mut Arc<ServiceDefaults>,
    receiver: Option<&watch::Receiver<Option<String>>>,
    nodes: &[NodeInfo],
) {
    if !defaults.must_detect_vip_danger() {
        return;
    }
    let detected_danger = receiver
        .map_or_else(|| defaults.vip_danger.clone(), |receiver| receiver.borrow().clone())
        .or_else(|| nodes.iter().find_map(|node| node.vip_danger.clone()));
    if detected_danger != defaults.vip_danger {
        tracing::info!(reason = detected_danger, "the reason why ipMode VIP is dangerous changed");
        Arc::make_mut(defaults).vip_danger = detected_danger;
    }
}

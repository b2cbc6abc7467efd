//! One turn for one Service: observe, decide, make the difference. Safe to repeat at any time.

use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;

use crate::apply::{ApplyError, Writer};
use crate::decide::ServiceState;
use crate::decide::{Action, ProxyConfig, decide, plan_actions};
use crate::key::ServiceKey;
use crate::metrics::Metrics;
use crate::spec::ServiceDefaults;

/// What a turn needs besides what it observes.
pub(crate) struct Context {
    pub(crate) writer: Writer,
    pub(crate) settings: ProxyConfig,
    pub(crate) defaults: Arc<ServiceDefaults>,
    pub(crate) metrics: Arc<Metrics>,
}

/// Brings the cluster to what the Service asks for. Does all that it can; reports the first failure.
///
/// Tells when the Service needs another turn although nothing happens to it.
pub(crate) async fn reconcile(
    context: &Context,
    key: &ServiceKey,
    observed: &ServiceState,
    now: Timestamp,
) -> Result<Option<Timestamp>, ApplyError> {
    let decision = decide(&context.settings, &context.defaults, observed, now);
    let service = observed.service.as_deref();
    let mut outcome = Ok(());
    for change in plan_actions(observed, &decision, now) {
        // News of what has failed would be false, and told again at each retry.
        if outcome.is_err() && matches!(change, Action::EmitEvent { .. }) {
            continue;
        }
        outcome = outcome.and(context.writer.make(key, service, &change).await);
    }
    match (service, &outcome) {
        // Somebody was quicker: what they wrote is on its way here, and the next turn will have seen it.
        (_, Err(error)) if error.is_conflict() => (),
        (Some(service), Err(error)) => context.writer.report(service, error).await?,
        (Some(service), Ok(())) => context.writer.clear_failure(service),
        (None, _) => (),
    }
    let exposure = decision.status.as_ref().and_then(|status| status.exposure.as_ref());
    context.metrics.set_service_state(key, exposure.map(|exposure| exposure.reason.as_str()));
    outcome.map(|()| decision.recheck_at)
}

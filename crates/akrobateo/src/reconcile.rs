//! Reconciles one Service: decides, compares with the cluster, and writes the difference. A reconciliation can be
//! repeated safely. Does I/O.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use akrobateo_services::key::ServiceKey;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::jiff::Timestamp;

use crate::apply::{ApplyError, Writer};
use crate::decide::{Action, ProxyConfig, ServiceState, WriteHistory, decide, plan_actions};
use crate::metrics::Metrics;

#[cfg(test)]
mod tests;

/// The values that all reconciliations share.
pub(crate) struct Context {
    pub(crate) writer: Writer,
    pub(crate) proxy_config: ProxyConfig,
    pub(crate) metrics: Arc<Metrics>,
    history: Mutex<WriteHistory>,
}

impl Context {
    /// Returns a context without a history of writes.
    pub(crate) fn new(writer: Writer, proxy_config: ProxyConfig, metrics: Arc<Metrics>) -> Self {
        Self { writer, proxy_config, metrics, history: Mutex::default() }
    }

    /// Deletes the records that only the leader may use, because another replica may write now.
    pub(crate) fn on_lost_leadership(&self) {
        self.metrics.on_lost_leadership();
        self.writer.clear_failures();
        self.history().clear();
    }

    /// Executes an action, and records a successful write.
    async fn execute(
        &self,
        key: &ServiceKey,
        service: Option<&Service>,
        action: &Action,
        now: Timestamp,
    ) -> Result<(), ApplyError> {
        let version = self.writer.execute(key, service, action).await?;
        if let Some(service) = service {
            let uid = service.metadata.uid.as_deref();
            self.history().on_written(key, uid, action, version.as_deref(), now);
        }
        Ok(())
    }

    fn history(&self) -> MutexGuard<'_, WriteHistory> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Executes every action that the Service needs, even after a failure. Returns the first failure. If no action fails,
/// returns the time at which the Service needs its next reconciliation. A change can cause an earlier reconciliation.
pub(crate) async fn reconcile(
    context: &Context,
    key: &ServiceKey,
    state: &ServiceState,
    now: Timestamp,
) -> Result<Option<Timestamp>, ApplyError> {
    let instance = &context.proxy_config.instance;
    let decision = decide(&context.proxy_config, state, now);
    let decision = context.history().limit_writes(instance, key, state, decision, now);
    let service = state.service.as_deref();
    let mut first_failure = None;
    for action in plan_actions(instance, state, &decision, now) {
        // A failed reconciliation emits no event, because events report successes. Each retry would also repeat the
        // event.
        if first_failure.is_some() && matches!(action, Action::EmitEvent { .. }) {
            continue;
        }
        if let Err(error) = context.execute(key, service, &action, now).await {
            first_failure.get_or_insert(error);
        }
    }
    match (service, &first_failure) {
        // Another client has changed the object first. The change of the other client will reach the cache and trigger
        // a reconciliation.
        (_, Some(error)) if error.is_conflict() => (),
        (Some(service), Some(error)) => {
            if let Err(error) = context.writer.report_failure(key, service, error).await {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(service = %key, error, "cannot report the failure as an event of the Service");
            }
        }
        (_, None) | (None, _) => context.writer.clear_failure(key),
    }
    let exposure = decision.status.as_ref().and_then(|status| status.exposure.as_ref());
    context.metrics.set_service_state(key, exposure.map(|exposure| exposure.reason.as_str()));
    context.metrics.set_outdated_proxies(key, decision.rollout.outdated_proxies.len());
    first_failure.map_or(Ok(decision.recheck_at), Err)
}

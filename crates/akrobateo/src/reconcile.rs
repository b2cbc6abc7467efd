//! One turn for one Service: observe, decide, make the difference. Safe to repeat at any time.

use crate::apply::{ApplyError, Writer};
use crate::decide::{ProxySettings, decide, difference};
use crate::key::ServiceKey;
use crate::observe::Observed;

/// What a turn needs besides what it observes.
pub(crate) struct Context {
    pub(crate) writer: Writer,
    pub(crate) settings: ProxySettings,
}

/// Brings the cluster to what the Service asks for. Does all that it can; reports the first failure.
pub(crate) async fn reconcile(
    context: &Context,
    key: &ServiceKey,
    observed: &Observed,
) -> Result<(), ApplyError> {
    let decision = decide(&context.settings, observed);
    if let Some(refusal) = &decision.refusal {
        context.writer.refuse(observed, refusal).await?;
    }
    let mut outcome = Ok(());
    for change in difference(observed, &decision) {
        outcome = outcome.and(context.writer.make(key, &change).await);
    }
    if let Err(error) = &outcome {
        context.writer.report(observed, error).await?;
    }
    outcome
}

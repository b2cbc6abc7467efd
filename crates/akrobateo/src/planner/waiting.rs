//! The waits of the planner for events other than triggers.

use tokio::sync::watch;
use tokio::time::sleep_until;

/// Waits for a change of the reason why ipMode VIP is dangerous. Without a receiver, waits for ever.
pub(super) async fn wait_for_vip_danger_change(receiver: Option<&mut watch::Receiver<Option<String>>>) {
    if let Some(receiver) = receiver
        && receiver.changed().await.is_ok()
    {
        return;
    }
    std::future::pending::<()>().await;
}

/// Waits until a time. If the time is `None`, waits for ever.
pub(super) async fn wait_until(time: Option<std::time::Instant>) {
    match time {
        Some(time) => sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}

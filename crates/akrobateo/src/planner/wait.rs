//! Waits that may never end. No I/O.

use std::time::Instant;

use tokio::sync::watch;
use tokio::time::sleep_until;

/// Waits until the reason why ipMode VIP is dangerous changes. Without a receiver, this function never returns.
pub(super) async fn wait_for_vip_danger_change(receiver: Option<&mut watch::Receiver<Option<String>>>) {
    if let Some(receiver) = receiver
        && receiver.changed().await.is_ok()
    {
        return;
    }
    std::future::pending::<()>().await;
}

/// Waits until a time. If the time is `None`, waits for ever.
pub(super) async fn sleep_until_or_forever(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}

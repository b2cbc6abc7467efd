//! Sends requests all the time while a test changes something, and counts the requests that fail. Does I/O.

use std::cell::Cell;

use crate::cluster::Cluster;
use crate::failure::{Failure, ensure};
use crate::target::Target;

/// Sends requests to all targets, one round after another, until `change` has ended. Fails if a request fails.
pub async fn ensure_answers_during<T>(
    cluster: &Cluster,
    targets: &[Target],
    change: impl AsyncFnOnce() -> Result<T, Failure>,
) -> Result<T, Failure> {
    let mut change = std::pin::pin!(change());
    let rounds = Cell::new(0_u32);
    loop {
        let replies = async {
            let replies = cluster.send_requests(targets).await?;
            let failed: Vec<_> = replies.iter().filter(|reply| reply.result.is_err()).collect();
            let completed_rounds = rounds.get();
            ensure(failed.is_empty(), || {
                format!("after {completed_rounds} rounds, these requests failed: {failed:?}")
            })
        };
        let mut replies = std::pin::pin!(replies);
        // The running round is completed, so that no request is lost when the change ends.
        let (round, ended) = tokio::select! {
            round = &mut replies => (round, None),
            ended = &mut change => (replies.await, Some(ended)),
        };
        round?;
        rounds.set(rounds.get() + 1);
        if let Some(result) = ended {
            return result;
        }
    }
}

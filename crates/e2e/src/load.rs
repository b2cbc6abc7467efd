//! Sends requests continuously while a test changes something, and checks that no request fails. Does I/O.

use std::cell::Cell;

use crate::cluster::Cluster;
use crate::failure::{Failure, ensure};
use crate::target::Target;

/// Sends a request to each target, one round after another, until `change` has ended. Returns an error if a request
/// fails.
pub async fn ensure_answers_during<T>(
    cluster: &Cluster,
    targets: &[Target],
    change: impl AsyncFnOnce() -> Result<T, Failure>,
) -> Result<T, Failure> {
    let mut change = std::pin::pin!(change());
    let rounds = Cell::new(0_u32);
    loop {
        let round = async {
            let replies = cluster.send_requests(targets).await?;
            let failed_replies: Vec<_> = replies.iter().filter(|reply| reply.result.is_err()).collect();
            let completed_rounds = rounds.get();
            ensure(failed_replies.is_empty(), || {
                format!("after {completed_rounds} rounds, these requests failed: {failed_replies:?}")
            })
        };
        let mut round = std::pin::pin!(round);
        // If the change ends during a round, the round continues until its end, so that the results of all requests are
        // checked.
        let (round_result, change_result) = tokio::select! {
            round_result = &mut round => (round_result, None),
            change_result = &mut change => (round.await, Some(change_result)),
        };
        round_result?;
        rounds.set(rounds.get() + 1);
        if let Some(result) = change_result {
            return result;
        }
    }
}

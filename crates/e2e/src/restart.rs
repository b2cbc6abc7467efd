//! Restarts the operator, and checks that the restart changes nothing. Does I/O.

use std::time::Duration;

use crate::audit;
use crate::failure::{Failure, ensure};
use crate::faults::Faults;
use crate::polling::consistently;

/// The time for which the test observes the new operator.
const OBSERVATION_TIME: Duration = Duration::from_secs(3);

impl Faults {
    /// Restarts the operator. Checks that the new operator writes only its Lease, because all state is in the cluster.
    /// `service_count` is the number of Services that the new operator must have reconciled first.
    pub async fn ensure_restart_writes_nothing(&self, service_count: usize) -> Result<(), Failure> {
        let operator = self.operator.restart().await?;
        self.wait_reconciliations(&operator, service_count).await?;
        consistently(OBSERVATION_TIME, "the operator writes only its Lease", async || {
            let requests = audit::read_requests_from_pod(&operator)?.into_iter();
            let writes: Vec<_> =
                requests.filter(|request| request.is_write() && request.resource != "leases").collect();
            ensure(writes.is_empty(), || format!("the operator made these writes: {writes:?}"))
        })
        .await
    }
}

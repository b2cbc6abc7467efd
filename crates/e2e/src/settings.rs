//! Changes the settings of the operator and of the agents in the cluster. Does I/O.

use futures::future::try_join;

use crate::failure::Failure;
use crate::faults::Faults;

/// The environment variable with the reserved ports.
const RESERVED_PORTS_VARIABLE: &str = "RESERVED_PORTS";

impl Faults {
    /// Sets the reserved ports of the operator and of the agents, and waits until the operator and all agents have
    /// started with the changed setting. `None` sets the default.
    pub async fn set_reserved_ports(&self, ports: Option<&str>) -> Result<(), Failure> {
        let operator = self.operator.set_environment_variable(RESERVED_PORTS_VARIABLE, ports);
        try_join(operator, self.agents.set_environment_variable(RESERVED_PORTS_VARIABLE, ports))
            .await
            .map(drop)
    }

    /// Removes the reserved ports that a test has set.
    pub(crate) async fn restore_reserved_ports(&self) -> Result<(), Failure> {
        if self.operator.has_environment_variable(RESERVED_PORTS_VARIABLE).await? {
            self.operator.start().await?;
            self.set_reserved_ports(None).await?;
        }
        Ok(())
    }
}

//! The variables that say which cluster is tested, and how. Reads the environment; nothing is ever guessed.

use std::path::PathBuf;

/// A variable of the tests: its name, and what it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Variable(&'static str, &'static str);

const KUBECONFIG: Variable = Variable("E2E_KUBECONFIG", "the kubeconfig of the cluster to test");
const CONTEXT: Variable = Variable("E2E_CONTEXT", "the context of the kubeconfig to use");
const CLIENT: Variable = Variable(
    "E2E_CLIENT",
    "the command by which a program is run as a client outside the cluster, for example cluster/client; empty \
     to run it right here",
);
pub(crate) const CLUSTER: Variable = Variable(
    "E2E_CLUSTER",
    "the directory of the commands of a cluster of ours (cluster/), to break things in it",
);
pub(crate) const AUDIT_LOG: Variable =
    Variable("E2E_AUDIT_LOG", "the API server's audit log of what the operator asked for");
pub(crate) const OPERATOR: Variable = Variable(
    "E2E_OPERATOR",
    "the operator's program, to be run on this machine: target/debug/akrobateo, for example",
);
/// Set by cargo for the tests of this package.
pub(crate) const ECHO: Variable =
    Variable("CARGO_BIN_EXE_echo", "the echo program, which `cargo test` builds and names");

/// A variable that a test needs is not set.
#[derive(Debug, thiserror::Error)]
#[error("{0} is not set; it is {1}")]
pub struct EnvironmentError(&'static str, &'static str);

impl Variable {
    pub(crate) fn read(self) -> Result<String, EnvironmentError> {
        std::env::var(self.0).map_err(|_| EnvironmentError(self.0, self.1))
    }

    fn read_non_empty(self) -> Result<String, EnvironmentError> {
        let value = self.read()?;
        if value.is_empty() { Err(EnvironmentError(self.0, self.1)) } else { Ok(value) }
    }
}

/// What every test needs to know.
#[derive(Clone, Debug)]
pub(crate) struct Environment {
    /// The kubeconfig's path.
    pub(crate) kubeconfig: PathBuf,
    /// The context in it.
    pub(crate) context: String,
    /// The words that go before a program and its arguments to run it outside the cluster.
    pub(crate) client: Vec<String>,
    /// The echo program.
    pub(crate) echo: String,
}

impl Environment {
    pub(crate) fn read() -> Result<Self, EnvironmentError> {
        Ok(Self {
            kubeconfig: KUBECONFIG.read_non_empty()?.into(),
            context: CONTEXT.read_non_empty()?,
            client: CLIENT.read()?.split_whitespace().map(str::to_owned).collect(),
            echo: ECHO.read_non_empty()?,
        })
    }
}

//! The environment variables that select the cluster under test. The variables have no defaults. Reads the environment.

use std::path::PathBuf;

/// An environment variable of the tests.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EnvironmentVariable {
    name: &'static str,
    description: &'static str,
}

const KUBECONFIG_PATH: EnvironmentVariable = EnvironmentVariable {
    name: "AKROBATEO_E2E_KUBECONFIG",
    description: "the path of the kubeconfig of the cluster under test",
};
const KUBECONFIG_CONTEXT: EnvironmentVariable = EnvironmentVariable {
    name: "AKROBATEO_E2E_CONTEXT",
    description: "the name of a context in that kubeconfig",
};
const CLIENT_COMMAND_PREFIX: EnvironmentVariable = EnvironmentVariable {
    name: "AKROBATEO_E2E_CLIENT",
    description: "a command prefix that runs a program as a client outside the cluster, for example cluster/client; \
                  an empty value runs the program on this machine",
};
pub(crate) const CLUSTER_DIRECTORY: EnvironmentVariable = EnvironmentVariable {
    name: "AKROBATEO_E2E_CLUSTER",
    description: "the path of the directory cluster/, which has the commands that inject faults into the cluster",
};
pub(crate) const AUDIT_LOG_PATH: EnvironmentVariable = EnvironmentVariable {
    name: "AKROBATEO_E2E_AUDIT_LOG",
    description: "the path of the API server's audit log with the operator's requests",
};
pub(crate) const OPERATOR_PROGRAM: EnvironmentVariable = EnvironmentVariable {
    name: "AKROBATEO_E2E_OPERATOR",
    description: "the path of the operator's program on this machine, for example target/debug/akrobateo",
};
/// Cargo sets this variable for the tests of this package.
pub(crate) const ECHO_PROGRAM: EnvironmentVariable = EnvironmentVariable {
    name: "CARGO_BIN_EXE_echo",
    description: "the path of the echo program; `cargo test` builds the program and sets this variable",
};

/// The error for a variable that is not set.
#[derive(Debug, thiserror::Error)]
#[error("the environment variable {name} is not set; expected {description}")]
pub struct EnvironmentError {
    name: &'static str,
    description: &'static str,
}

impl EnvironmentVariable {
    pub(crate) fn read_value(self) -> Result<String, EnvironmentError> {
        std::env::var(self.name).map_err(|_| self.missing_variable_error())
    }

    fn read_non_empty_value(self) -> Result<String, EnvironmentError> {
        let value = self.read_value()?;
        if value.is_empty() { Err(self.missing_variable_error()) } else { Ok(value) }
    }

    fn missing_variable_error(self) -> EnvironmentError {
        EnvironmentError { name: self.name, description: self.description }
    }
}

/// The settings that every test needs.
#[derive(Clone, Debug)]
pub(crate) struct Environment {
    /// The path of the kubeconfig.
    pub(crate) kubeconfig_path: PathBuf,
    /// The name of the context in the kubeconfig.
    pub(crate) kubeconfig_context: String,
    /// The command prefix that runs a program outside the cluster.
    pub(crate) client_command_prefix: Vec<String>,
    /// The path of the echo program.
    pub(crate) echo_path: String,
}

impl Environment {
    pub(crate) fn read() -> Result<Self, EnvironmentError> {
        Ok(Self {
            kubeconfig_path: KUBECONFIG_PATH.read_non_empty_value()?.into(),
            kubeconfig_context: KUBECONFIG_CONTEXT.read_non_empty_value()?,
            client_command_prefix: CLIENT_COMMAND_PREFIX
                .read_value()?
                .split_whitespace()
                .map(str::to_owned)
                .collect(),
            echo_path: ECHO_PROGRAM.read_non_empty_value()?,
        })
    }
}

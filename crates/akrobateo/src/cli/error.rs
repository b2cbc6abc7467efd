//! Why a command could not be done.

use std::error::Error;
use std::path::PathBuf;

use crate::cache::ListError;
use crate::client::ConnectError;
use crate::key::ServiceKey;

/// Why a command could not be done.
#[derive(Debug, thiserror::Error)]
pub(super) enum CliError {
    #[error("no connection to a cluster")]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    List(#[from] ListError),
    #[error(
        "the operator in the cluster, Deployment {name}, has settings that this version does not take: {message}"
    )]
    OperatorSettings { name: String, message: String },
    #[error("there is no Service {0}")]
    NoService(ServiceKey),
    #[error("cannot read {file}")]
    Read { file: PathBuf, source: std::io::Error },
    #[error("{file}, document {number}: {problem}")]
    Document { file: PathBuf, number: usize, problem: String },
    #[error("{0} has no Service of type LoadBalancer")]
    NothingToRender(PathBuf),
    #[error("cannot write the answer")]
    Write(#[source] std::io::Error),
    #[error("cannot encode the answer: {0}")]
    Encode(String),
}

impl CliError {
    /// The error and what led to it, in one line.
    pub(super) fn with_causes(&self) -> String {
        let mut said = vec![self.to_string()];
        let mut cause = self.source();
        while let Some(error) = cause {
            // Transparent errors say again what those around them have said.
            said.extend(Some(error.to_string()).filter(|text| said.last() != Some(text)));
            cause = error.source();
        }
        said.join(": ")
    }
}

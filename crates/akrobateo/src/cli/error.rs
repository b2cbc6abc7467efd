//! The errors of the commands. Pure.

use akrobateo_services::key::ServiceKey;
use api_client::ConnectError;

use crate::cache::ListError;

/// The reason why a command failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum CliError {
    #[error("cannot connect to a cluster; --kubeconfig and --context select a cluster")]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    List(#[from] ListError),
    #[error(
        "this version of akrobateo does not accept the configuration of the operator in Deployment {deployment_name}; use \
         the operator's version of akrobateo: {message}"
    )]
    OperatorConfig { deployment_name: String, message: String },
    #[error("Service {0} not found; to list the Services of type LoadBalancer, run: akrobateo status")]
    ServiceNotFound(ServiceKey),
    #[error("cannot read {file}")]
    Read { file: String, source: std::io::Error },
    #[error("cannot parse {file}, expected Kubernetes objects in YAML or JSON: {message}")]
    Parse { file: String, message: String },
    #[error("found no Service of type LoadBalancer in {0}; add one or select another file with --file")]
    NothingToRender(String),
    #[error("cannot write to standard output")]
    Write(#[source] std::io::Error),
    #[error("cannot encode the output: {0}")]
    Encode(String),
}

//! The connection to the API server. Does I/O.

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use crate::settings::OperatorConfig;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The kubeconfig that was named cannot be used.
    #[error("cannot use the kubeconfig or context that was given")]
    Kubeconfig(#[from] kube::config::KubeconfigError),
    /// Neither a kubeconfig nor a pod's service account was found.
    #[error("found neither a kubeconfig nor a pod's service account")]
    Infer(#[from] kube::config::InferConfigError),
    /// The configuration cannot be made into a client.
    #[error("cannot make a client of the configuration")]
    Client(#[from] kube::Error),
}

/// The namespace of an operator that runs outside a cluster.
pub(crate) const NAMESPACE_OUTSIDE: &str = "kube-system";

/// A client, and the operator's own namespace.
pub(crate) async fn connect(settings: &OperatorConfig) -> Result<(Client, String), ConnectError> {
    let options = KubeConfigOptions { context: settings.context.clone(), ..KubeConfigOptions::default() };
    let (mut config, own_namespace) = match &settings.kubeconfig {
        Some(path) => (Config::from_custom_kubeconfig(Kubeconfig::read_from(path)?, &options).await?, None),
        None if settings.context.is_some() => (Config::from_kubeconfig(&options).await?, None),
        // A service account comes first: a pod's operator is for the cluster that it runs in.
        None => match Config::incluster() {
            Ok(config) => {
                let own = config.default_namespace.clone();
                (config, Some(own))
            }
            Err(_) => (Config::infer().await?, None),
        },
    };
    // The queue retries, with a backoff of its own; a call's deadline must be its end.
    config.default_retry = false;
    let client = Client::try_from(config)?;
    Ok((client, own_namespace.unwrap_or_else(|| NAMESPACE_OUTSIDE.to_owned())))
}

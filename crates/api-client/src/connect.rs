//! Creates the client of the API server from a kubeconfig or a ServiceAccount. Does I/O.

use std::path::PathBuf;

use clap::Args;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

/// The reason why the client cannot be created.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The kubeconfig of `--kubeconfig` or the context of `--context` is invalid.
    #[error("cannot use the kubeconfig or context; check --kubeconfig and --context")]
    Kubeconfig(#[from] kube::config::KubeconfigError),
    /// The program has no kubeconfig, and does not run in a pod with a ServiceAccount.
    #[error("found neither a kubeconfig nor the ServiceAccount of a pod; --kubeconfig names a kubeconfig")]
    ConfigNotFound(#[from] kube::config::InferConfigError),
    /// The configuration is invalid, for example its certificates.
    #[error("cannot create a client from the kubeconfig or ServiceAccount; check its server and credentials")]
    Client(#[from] kube::Error),
}

/// The flags that select the API server.
#[derive(Args, Clone, Debug, Default)]
pub struct ConnectOptions {
    /// Path of the kubeconfig [default: in a pod its ServiceAccount, otherwise $KUBECONFIG or ~/.kube/config]
    #[arg(long, global = true, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,

    /// Context of the kubeconfig [default: its current context]
    #[arg(long, global = true, value_name = "NAME")]
    pub context: Option<String>,
}

/// Returns a client and, in a pod, the pod's namespace. Sends no request.
pub async fn connect(options: &ConnectOptions) -> Result<(Client, Option<String>), ConnectError> {
    let kubeconfig_options =
        KubeConfigOptions { context: options.context.clone(), ..KubeConfigOptions::default() };
    let (config, pod_namespace) = match &options.kubeconfig {
        Some(path) => {
            (Config::from_custom_kubeconfig(Kubeconfig::read_from(path)?, &kubeconfig_options).await?, None)
        }
        None if options.context.is_some() => (Config::from_kubeconfig(&kubeconfig_options).await?, None),
        // The ServiceAccount comes first, because a program in a pod serves the cluster of this pod.
        None => match Config::incluster() {
            Ok(config) => {
                let namespace = config.default_namespace.clone();
                (config, Some(namespace))
            }
            Err(_) => (Config::infer().await?, None),
        },
    };
    Ok((client_without_retries(config)?, pod_namespace))
}

/// Returns a client that sends each request once. By default kube retries a request up to 15 times after the HTTP
/// status 429, 503 or 504. These retries take longer than the deadline of a request. The queue retries with its own
/// backoff instead.
fn client_without_retries(mut config: Config) -> kube::Result<Client> {
    config.default_retry = false;
    Client::try_from(config)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    const TOO_MANY_REQUESTS_RESPONSE: &[u8] =
        b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 30\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

    #[tokio::test]
    async fn client_does_not_retry_a_request() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let client = client_without_retries(Config::new(url.parse().unwrap())).unwrap();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            assert_ne!(stream.read(&mut [0; 4096]).await.unwrap(), 0);
            stream.write_all(TOO_MANY_REQUESTS_RESPONSE).await.unwrap();
        });
        let start = Instant::now();
        let answer = client.apiserver_version().await;
        server.await.unwrap();
        assert!(answer.is_err());
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "the client waited for Retry-After: {:?}",
            start.elapsed()
        );
    }
}

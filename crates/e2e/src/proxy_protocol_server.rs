//! Servers that accept the PROXY protocol, as backend pods: Debian's nginx and HAProxy. Does I/O.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use k8s_openapi::api::core::v1::{
    ConfigMap, ConfigMapVolumeSource, Container, Pod, PodSpec, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::{LogParams, PostParams};

use crate::backend::{self, tcp_probe};
use crate::command;
use crate::failure::Failure;
use crate::namespace::Namespace;

const SERVER_NAME: &str = "server";
const SERVER_IMAGE: &str = concat!("ghcr.io/akrobateo/servers:", env!("CARGO_PKG_VERSION"));
const CONFIG_DIRECTORY: &str = "/etc/config";
/// The port of the readiness probe. The server does not expect a PROXY header on this port.
const PROBE_PORT: u16 = 8088;

/// A server that returns and logs the client address in the PROXY header.
#[derive(Clone, Copy, Debug)]
pub enum ProxyProtocolServer {
    /// The server nginx. The server accepts both versions of the PROXY protocol.
    Nginx,
    /// The server HAProxy. The server accepts both versions of the PROXY protocol.
    Haproxy,
}

impl ProxyProtocolServer {
    fn config(self) -> String {
        let port = backend::PORT;
        match self {
            Self::Nginx => format!(
                "daemon off; pid /tmp/pid; worker_processes 1; error_log /dev/stderr info; events {{}}\n\
                 http {{\n\
                   client_body_temp_path /tmp/a; proxy_temp_path /tmp/b; fastcgi_temp_path /tmp/c;\n\
                   uwsgi_temp_path /tmp/d; scgi_temp_path /tmp/e;\n\
                   log_format client 'client=$proxy_protocol_addr'; access_log /dev/stdout client;\n\
                   server {{\n\
                     listen {port} proxy_protocol; listen [::]:{port} proxy_protocol;\n\
                     location / {{ return 200 \"client=$proxy_protocol_addr\\n\"; }}\n\
                   }}\n\
                   server {{ listen {PROBE_PORT}; listen [::]:{PROBE_PORT}; }}\n\
                 }}\n"
            ),
            Self::Haproxy => format!(
                "global\n  log stdout format raw local0\n\
                 defaults\n  mode http\n  timeout connect 5s\n  timeout client 5s\n  timeout server 5s\n\
                 frontend web\n  bind :::{port} v4v6 accept-proxy\n  log global\n  log-format client=%ci\n\
                 \x20 http-request return status 200 content-type text/plain lf-string client=%[src]\n\
                 frontend probe\n  bind :::{PROBE_PORT} v4v6\n  http-request return status 200\n"
            ),
        }
    }

    fn command(self) -> Vec<String> {
        let config = format!("{CONFIG_DIRECTORY}/{SERVER_NAME}");
        let words = match self {
            Self::Nginx => ["/usr/sbin/nginx", "-c", &config],
            Self::Haproxy => ["/usr/sbin/haproxy", "-f", &config],
        };
        words.map(str::to_owned).into()
    }
}

impl Namespace {
    /// Starts a server as the backend of the test's Services, and waits until its pod is ready.
    pub async fn start_server(&self, server: ProxyProtocolServer) -> Result<(), Failure> {
        let config = ConfigMap {
            metadata: ObjectMeta { name: Some(SERVER_NAME.to_owned()), ..ObjectMeta::default() },
            data: Some(BTreeMap::from([(SERVER_NAME.to_owned(), server.config())])),
            ..ConfigMap::default()
        };
        let config_maps = Api::<ConfigMap>::namespaced(self.client(), self.name());
        config_maps.create(&PostParams::default(), &config).await?;
        self.create_ready_pod(&server_pod(server)).await.map(drop)
    }

    /// Returns the log of the server.
    pub async fn get_server_log(&self) -> Result<String, Failure> {
        Ok(self.pods().logs(SERVER_NAME, &LogParams::default()).await?)
    }

    /// Sends an HTTP request from outside the cluster. Returns the client address in the server's response, and
    /// the client's real address.
    pub async fn request_client_address(
        &self,
        server_address: SocketAddr,
    ) -> Result<(IpAddr, IpAddr), Failure> {
        let curl_command =
            ["curl", "--silent", "--fail", "--noproxy", "*", "--max-time", "3", "--globoff", "--write-out"];
        let args = ["\nlocal=%{local_ip}\n".to_owned(), format!("http://{server_address}/")];
        let client_command_prefix = self.cluster().environment.client_command_prefix.iter().cloned();
        let words = client_command_prefix.chain(curl_command.map(str::to_owned)).chain(args);
        let response = command::run(words.collect()).await?;
        let parse_line = |prefix: &str| {
            let address = response.lines().find_map(|line| line.strip_prefix(prefix)?.parse().ok());
            address.ok_or_else(|| {
                Failure::UnexpectedState(format!(
                    "expected a line {prefix}ADDRESS in the response: {response:?}"
                ))
            })
        };
        Ok((parse_line("client=")?, parse_line("local=")?))
    }
}

fn server_pod(server: ProxyProtocolServer) -> Pod {
    let container = Container {
        name: SERVER_NAME.to_owned(),
        image: Some(SERVER_IMAGE.to_owned()),
        image_pull_policy: Some("IfNotPresent".to_owned()),
        command: Some(server.command()),
        volume_mounts: Some(vec![VolumeMount {
            name: SERVER_NAME.to_owned(),
            mount_path: CONFIG_DIRECTORY.to_owned(),
            ..VolumeMount::default()
        }]),
        readiness_probe: Some(tcp_probe(PROBE_PORT)),
        ..Container::default()
    };
    Pod {
        metadata: ObjectMeta {
            name: Some(SERVER_NAME.to_owned()),
            labels: Some(backend::labels()),
            ..ObjectMeta::default()
        },
        spec: Some(PodSpec {
            automount_service_account_token: Some(false),
            containers: vec![container],
            volumes: Some(vec![Volume {
                name: SERVER_NAME.to_owned(),
                config_map: Some(ConfigMapVolumeSource {
                    name: SERVER_NAME.to_owned(),
                    ..ConfigMapVolumeSource::default()
                }),
                ..Volume::default()
            }]),
            termination_grace_period_seconds: Some(0),
            ..PodSpec::default()
        }),
        status: None,
    }
}

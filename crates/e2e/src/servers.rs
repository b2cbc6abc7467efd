//! Servers of others that understand the PROXY protocol: Debian's nginx and HAProxy, as pods. Does I/O.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use k8s_openapi::api::core::v1::{
    ConfigMap, ConfigMapVolumeSource, Container, Pod, PodSpec, Probe, TCPSocketAction, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::Api;
use kube::api::{DeleteParams, LogParams, PostParams};

use crate::backend::{self, is_ready};
use crate::{Failure, Namespace, command, ensure, eventually};

const NAME: &str = "server";
const IMAGE: &str = concat!("ghcr.io/akrobateo/servers:", env!("CARGO_PKG_VERSION"));
const CONFIG: &str = "/etc/config";
/// Answers a TCP probe, and expects no header.
const PROBE_PORT: u16 = 8088;

/// A server of somebody else's, which returns and logs the address that it takes for the client's.
#[derive(Clone, Copy, Debug)]
pub enum Server {
    /// nginx, which accepts both versions of the protocol.
    Nginx,
    /// HAProxy, likewise.
    Haproxy,
}

impl Server {
    fn config(self) -> String {
        let port = backend::PORT;
        match self {
            Self::Nginx => format!(
                "daemon off; pid /tmp/pid; worker_processes 1; error_log /dev/stderr info; events {{}}\n\
                 http {{\n\
                   client_body_temp_path /tmp/a; proxy_temp_path /tmp/b; fastcgi_temp_path /tmp/c;\n\
                   uwsgi_temp_path /tmp/d; scgi_temp_path /tmp/e;\n\
                   log_format seen 'client=$proxy_protocol_addr'; access_log /dev/stdout seen;\n\
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
        let config = format!("{CONFIG}/{NAME}");
        let words = match self {
            Self::Nginx => ["/usr/sbin/nginx", "-c", &config],
            Self::Haproxy => ["/usr/sbin/haproxy", "-f", &config],
        };
        words.map(str::to_owned).into()
    }
}

impl Namespace {
    /// Starts such a server as the backend of the test's Services, and waits until it serves.
    pub async fn server(&self, server: Server) -> Result<(), Failure> {
        let config = ConfigMap {
            metadata: ObjectMeta { name: Some(NAME.to_owned()), ..ObjectMeta::default() },
            data: Some(BTreeMap::from([(NAME.to_owned(), server.config())])),
            ..ConfigMap::default()
        };
        let configs = Api::<ConfigMap>::namespaced(self.client(), self.name());
        configs.create(&PostParams::default(), &config).await?;
        let pods = Api::<Pod>::namespaced(self.client(), self.name());
        pods.create(&PostParams::default(), &pod(server)).await?;
        eventually("the server is ready", async || {
            let pod = pods.get(NAME).await?;
            ensure(is_ready(&pod), || format!("{:?}", pod.status))
        })
        .await
    }

    /// Takes that server away.
    pub async fn remove_server(&self) -> Result<(), Failure> {
        let at_once = DeleteParams::default().grace_period(0);
        Api::<Pod>::namespaced(self.client(), self.name()).delete(NAME, &at_once).await?;
        Api::<ConfigMap>::namespaced(self.client(), self.name()).delete(NAME, &at_once).await?;
        Ok(())
    }

    /// What the server has logged.
    pub async fn server_log(&self) -> Result<String, Failure> {
        Ok(Api::<Pod>::namespaced(self.client(), self.name()).logs(NAME, &LogParams::default()).await?)
    }

    /// Asks the server over HTTP from outside the cluster: the address that it takes for the client's, and the
    /// client's real one.
    pub async fn client_seen_at(&self, address: SocketAddr) -> Result<(IpAddr, IpAddr), Failure> {
        let curl =
            ["curl", "--silent", "--fail", "--noproxy", "*", "--max-time", "3", "--globoff", "--write-out"];
        let words = curl.map(str::to_owned).into_iter();
        let words = words.chain(["\nfrom=%{local_ip}\n".to_owned(), format!("http://{address}/")]);
        let printed =
            command::run(self.cluster().environment.client.iter().cloned().chain(words).collect()).await?;
        let value = |name: &str| {
            let value = printed.lines().find_map(|line| line.strip_prefix(name)?.parse().ok());
            value.ok_or_else(|| Failure::Unmet(format!("no {name} in what was answered: {printed:?}")))
        };
        Ok((value("client=")?, value("from=")?))
    }
}

fn pod(server: Server) -> Pod {
    let probe = TCPSocketAction { port: IntOrString::Int(PROBE_PORT.into()), ..TCPSocketAction::default() };
    let container = Container {
        name: NAME.to_owned(),
        image: Some(IMAGE.to_owned()),
        image_pull_policy: Some("IfNotPresent".to_owned()),
        command: Some(server.command()),
        volume_mounts: Some(vec![VolumeMount {
            name: NAME.to_owned(),
            mount_path: CONFIG.to_owned(),
            ..VolumeMount::default()
        }]),
        readiness_probe: Some(Probe { tcp_socket: Some(probe), period_seconds: Some(1), ..Probe::default() }),
        ..Container::default()
    };
    Pod {
        metadata: ObjectMeta {
            name: Some(NAME.to_owned()),
            labels: Some(backend::labels()),
            ..ObjectMeta::default()
        },
        spec: Some(PodSpec {
            automount_service_account_token: Some(false),
            containers: vec![container],
            volumes: Some(vec![Volume {
                name: NAME.to_owned(),
                config_map: Some(ConfigMapVolumeSource {
                    name: NAME.to_owned(),
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

//! Servers on loopback addresses of a node. A Service with the same port does not receive the packets for these
//! servers.

use akrobateo_core::Protocol;
use e2e::backend::echo_pod;
use e2e::{Failure, Target, consistently, ensure, ensure_eq, fault_test, service};
use std::time::Duration;

/// The address and the port of systemd-resolved, and the port of the liveness probe of calico-node.
const LOOPBACK_SERVERS: [(&str, u16); 2] = [("127.0.0.53", 53), ("127.0.0.1", 9099)];

#[tokio::test]
async fn service_receives_no_packets_for_loopback_addresses() -> Result<(), Failure> {
    fault_test(async |namespace, faults| {
        namespace.start_backend().await?;
        let nodes = namespace.cluster().list_nodes().await?;
        let node = &nodes[0].name;
        let mut requests = Vec::new();
        for (address, port) in LOOPBACK_SERVERS {
            let pod = echo_pod(&format!("loopback-{port}")).on_node(node).on_loopback(address, port);
            namespace.start_pod(&pod).await?;
            let host = address.parse().expect("the constant is an address");
            requests.extend([Protocol::Tcp, Protocol::Udp].map(|protocol| Target { protocol, host, port }));
        }
        let dns = service("dns").tcp(53).udp(53);
        let probe = service("probe").tcp(9099).udp(9099);
        namespace.expose(&dns).await?;
        namespace.expose(&probe).await?;
        consistently(Duration::from_secs(2), "the server on the loopback address answers", async || {
            for &request in &requests {
                let answer = faults.request_from_node(node, request).await?;
                // A pod in the network of its node has the host name of the node.
                ensure_eq("host that answers", &answer.host, node)?;
                ensure(answer.client_address.ip().is_loopback(), || format!("{request}: {answer}"))?;
            }
            Ok(())
        })
        .await?;
        namespace.wait_exposed(&dns).await?;
        namespace.wait_exposed(&probe).await.map(drop)
    })
    .await
}

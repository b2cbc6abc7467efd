//! Graceful shutdown: the proxy serves new clients as long as earlier ones need it, and connections finish.

use std::io::{Error, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::streams::{read_blocks, write_blocks};
use super::{
    EmbeddedProxy, FORWARD_ARGS, accept, bind_backends, connect, connect_pair, read_to_end, start_proxy,
};
use crate::harness::addr::{self, with_port};
use crate::harness::proxy::probe_status;
use crate::harness::traffic::REPLY_TIMEOUT;
use crate::harness::{Network, eventually, isolated};

/// The limit of the time in which a proxy ends once no earlier connection holds it, on a busy machine. It is less than the
/// time for which a connection can hold a proxy.
const END_TIMEOUT: Duration = Duration::from_secs(8);

/// Connects a new client through the proxy and exchanges a question and an answer.
fn check_new_client(network: &Network, backends: &[TcpListener; 2]) {
    let (mut client, mut backend) = connect_pair(network, backends, 0);
    client.write_all(b"question").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_to_end(&backend).unwrap(), b"question");
    backend.write_all(b"answer").unwrap();
    drop(backend);
    assert_eq!(read_to_end(&client).unwrap(), b"answer");
}

#[test]
fn draining_proxy_serves_new_clients_until_the_earlier_connections_end() {
    isolated(|| {
        let network = Network::new();
        let backends = bind_backends(&network);
        let mut proxy = start_proxy(&network.pod, FORWARD_ARGS);
        let (mut client, mut backend) = connect_pair(&network, &backends, 0);
        proxy.signal(Signal::TERM);
        eventually("the proxy is not ready", || (probe_status(&network.pod) == Some(503)).then_some(()));
        // Ten clients in a second, as long as the earlier client is there.
        for _ in 0..30 {
            check_new_client(&network, &backends);
            std::thread::sleep(Duration::from_millis(100));
        }
        client.write_all(b"question").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_to_end(&backend).unwrap(), b"question");
        backend.write_all(b"answer").unwrap();
        drop(backend);
        assert_eq!(read_to_end(&client).unwrap(), b"answer");
        let (exit, elapsed) = proxy.wait_for_exit();
        assert!(exit.success() && elapsed < END_TIMEOUT, "{exit} after {elapsed:?}");
    });
}

#[test]
fn idle_connection_holds_a_draining_proxy_for_a_limited_time_and_is_reset() {
    isolated(|| {
        let network = Network::new();
        let backends = bind_backends(&network);
        let proxy = EmbeddedProxy::new(&network.pod, &["tcp/80=10.96.3.7:80"], |settings| {
            settings.drain_accept = Duration::from_secs(3);
        });
        let (client, backend) = connect_pair(&network, &backends, 0);
        let start = Instant::now();
        std::thread::scope(|scope| {
            scope.spawn(|| proxy.drain());
            std::thread::sleep(Duration::from_secs(1));
            check_new_client(&network, &backends);
        });
        let elapsed = start.elapsed();
        assert!(elapsed > Duration::from_secs(3), "{elapsed:?}");
        assert!(elapsed < Duration::from_secs(3) + END_TIMEOUT, "{elapsed:?}");
        for end in [&client, &backend] {
            assert_eq!(read_to_end(end).unwrap_err().kind(), ErrorKind::ConnectionReset);
        }
    });
}

#[test]
fn busy_connection_holds_a_closing_proxy_for_a_limited_time() {
    isolated(|| {
        let network = Network::new();
        let backends = bind_backends(&network);
        let proxy = EmbeddedProxy::new(&network.pod, &["tcp/80=10.96.3.7:80"], |settings| {
            settings.drain_accept = Duration::ZERO;
            settings.close_timeout = Duration::from_secs(3);
        });
        let (mut client, backend) = connect_pair(&network, &backends, 0);
        let start = Instant::now();
        std::thread::scope(|scope| {
            scope.spawn(|| proxy.drain());
            while client.write_all(b"busy").is_ok() {
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        let elapsed = start.elapsed();
        assert!(elapsed > Duration::from_secs(3) && elapsed < END_TIMEOUT, "{elapsed:?}");
        assert_eq!(read_to_end(&backend).unwrap_err().kind(), ErrorKind::ConnectionReset);
    });
}

#[test]
fn draining_proxy_accepts_a_client_whose_handshake_has_begun() {
    isolated(|| {
        let network = Network::new();
        let backends = bind_backends(&network);
        let mut proxy = start_proxy(&network.pod, FORWARD_ARGS);
        // The proxy's SYN-ACK is lost. The kernel sends the SYN-ACK again after one second.
        network.client.nft("add table inet lossy");
        network.client.nft("add chain inet lossy input { type filter hook input priority 0 ; }");
        network.client.nft("add rule inet lossy input tcp sport 80 counter drop");
        std::thread::scope(|scope| {
            let client = scope.spawn(|| connect(&network, 0));
            eventually("the client starts to connect", || {
                (!network.client.nft("list table inet lossy").contains("packets 0 ")).then_some(())
            });
            proxy.signal(Signal::TERM);
            proxy.wait_for_log("draining");
            network.client.nft("delete table inet lossy");
            let mut client = client.join().unwrap();
            client.write_all(b"just in time").unwrap();
            client.shutdown(Shutdown::Write).unwrap();
            assert_eq!(read_to_end(&accept(&backends[0])).unwrap(), b"just in time");
        });
        assert!(proxy.wait_for_exit().0.success());
    });
}

#[test]
fn draining_proxy_without_connections_exits_within_three_seconds() {
    isolated(|| {
        let network = Network::new();
        let mut proxy = start_proxy(&network.pod, FORWARD_ARGS);
        proxy.signal(Signal::TERM);
        let (exit, elapsed) = proxy.wait_for_exit();
        assert!(exit.success() && elapsed < Duration::from_secs(3), "{exit} after {elapsed:?}");
    });
}

/// Sends a request from a new client and checks the response. Returns an error only if the connection is refused.
fn request(network: &Network, address: SocketAddr) -> Result<(), Error> {
    let mut stream = network.client.run(|| TcpStream::connect_timeout(&address, REPLY_TIMEOUT))?;
    stream.set_read_timeout(Some(REPLY_TIMEOUT)).unwrap();
    let mut send_question = || {
        stream.write_all(b"question")?;
        let mut response = String::new();
        stream.read_to_string(&mut response).map(|_| response)
    };
    let response = send_question().unwrap_or_else(|error| panic!("an accepted connection failed: {error}"));
    assert_eq!(response, "answer");
    Ok(())
}

/// Answers one request per connection.
fn serve_requests(listener: &TcpListener) {
    for mut stream in listener.incoming().map_while(Result::ok) {
        let mut question = [0; 8];
        if stream.read_exact(&mut question).is_ok() {
            stream.write_all(b"answer").unwrap();
        }
    }
}

#[test]
fn drain_under_load_breaks_no_accepted_connection() {
    isolated(|| {
        let network = Network::new();
        let [short_requests, long_stream] = bind_backends(&network);
        std::thread::spawn(move || serve_requests(&short_requests));
        let mut proxy = start_proxy(&network.pod, FORWARD_ARGS);
        let client = connect(&network, 1);
        let backend = accept(&long_stream);
        let address: SocketAddr = with_port(addr::POD[0], 80).parse().unwrap();
        let (completed, refused) = (AtomicU32::new(0), AtomicBool::new(false));
        std::thread::scope(|scope| {
            // One long upload, while short connections come and go.
            scope.spawn(|| {
                write_blocks(&client, 256 << 20).unwrap();
                client.shutdown(Shutdown::Write).unwrap();
            });
            let clients: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        let start = Instant::now();
                        while start.elapsed() < 20 * REPLY_TIMEOUT {
                            match request(&network, address) {
                                Ok(()) => _ = completed.fetch_add(1, Relaxed),
                                Err(_) => return refused.store(true, Relaxed),
                            }
                        }
                    })
                })
                .collect();
            eventually("short connections complete", || {
                (completed.load(Relaxed) > 50 || clients.iter().any(ScopedJoinHandle::is_finished))
                    .then_some(())
            });
            assert!(!refused.load(Relaxed), "a ready proxy refused a client");
            proxy.signal(Signal::TERM);
            read_blocks(&backend, 256 << 20);
            assert!(!refused.load(Relaxed), "the draining proxy refused a client");
            backend.shutdown(Shutdown::Write).unwrap();
            for client in clients {
                client.join().unwrap();
            }
        });
        assert!(refused.load(Relaxed), "the closing proxy still accepts clients");
        drop((client, backend));
        let (exit, _) = proxy.wait_for_exit();
        assert!(exit.success(), "{exit}");
    });
}

//! Graceful shutdown: the draining proxy serves new clients until the earlier connections have ended.

use std::io::{Error, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

use akrobateo_lb::probe::DataPathStatus;
use rustix::process::Signal;

use super::streams::{read_blocks, write_blocks};
use super::{
    EmbeddedProxy, FORWARD_ARGS, accept, bind_backends, connect, connect_pair, read_to_end, start_proxy,
    wait_for_end,
};
use crate::harness::addr::{self, with_port};
use crate::harness::proxy::probe_status;
use crate::harness::traffic::REPLY_TIMEOUT;
use crate::harness::{Network, eventually, isolated};

/// A timeout that no test reaches, because the timeout is longer than the deadline of a test.
pub(super) const LONGER_THAN_ANY_TEST: Duration = Duration::from_hours(1);
/// The default of [`Settings::drain_timeout`](akrobateo_lb::userspace::Settings::drain_timeout).
const DEFAULT_DRAIN_TIMEOUT: Duration = Duration::from_secs(20);

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
        let proxy = EmbeddedProxy::new(&network.pod, &["tcp/80=10.96.3.7:80"], |settings| {
            settings.drain_timeout = LONGER_THAN_ANY_TEST;
            settings.close_timeout = LONGER_THAN_ANY_TEST;
        });
        let status = proxy.status();
        let (mut client, mut backend) = connect_pair(&network, &backends, 0);
        let drain_thread = proxy.start_drain();
        eventually("the proxy is not ready", || status.check_readiness().err());
        // Connects ten clients per second while the earlier client is connected.
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
        wait_for_end(drain_thread);
    });
}

#[test]
fn draining_proxy_resets_an_idle_connection_after_the_drain_timeout() {
    isolated(|| {
        let network = Network::new();
        let backends = bind_backends(&network);
        let proxy = EmbeddedProxy::new(&network.pod, &["tcp/80=10.96.3.7:80"], |settings| {
            settings.drain_timeout = Duration::from_secs(3);
            settings.close_timeout = LONGER_THAN_ANY_TEST;
        });
        let (client, backend) = connect_pair(&network, &backends, 0);
        let start = Instant::now();
        wait_for_end(proxy.start_drain());
        assert!(start.elapsed() > Duration::from_secs(3), "{:?}", start.elapsed());
        for stream in [&client, &backend] {
            assert_eq!(read_to_end(stream).unwrap_err().kind(), ErrorKind::ConnectionReset);
        }
    });
}

#[test]
fn closing_proxy_resets_a_busy_connection_after_the_close_timeout() {
    isolated(|| {
        let network = Network::new();
        let backends = bind_backends(&network);
        let proxy = EmbeddedProxy::new(&network.pod, &["tcp/80=10.96.3.7:80"], |settings| {
            settings.drain_timeout = Duration::ZERO;
            settings.close_timeout = Duration::from_secs(3);
            // With this timeout, the connection is considered busy during the whole test.
            settings.close_idle_timeout = LONGER_THAN_ANY_TEST;
        });
        let (_client, backend) = connect_pair(&network, &backends, 0);
        let start = Instant::now();
        wait_for_end(proxy.start_drain());
        assert!(start.elapsed() > Duration::from_secs(3), "{:?}", start.elapsed());
        assert_eq!(read_to_end(&backend).unwrap_err().kind(), ErrorKind::ConnectionReset);
    });
}

/// Starts a proxy and a client. The proxy starts to drain during the client's handshake. Checks that the proxy accepts
/// the client. Returns false if the machine was too busy for this check.
fn check_handshake_during_start_of_drain(network: &Network) -> bool {
    let backends = bind_backends(network);
    let proxy = EmbeddedProxy::new(&network.pod, &["tcp/80=10.96.3.7:80"], |settings| {
        settings.close_timeout = LONGER_THAN_ANY_TEST;
        // The client may be slow on a busy machine.
        settings.close_idle_timeout = LONGER_THAN_ANY_TEST;
    });
    let status = proxy.status();
    // The rule drops the proxy's SYN-ACK. The kernel sends the SYN-ACK again after one second.
    network.client.nft("add table inet lossy");
    network.client.nft("add chain inet lossy input { type filter hook input priority 0 ; }");
    network.client.nft("add rule inet lossy input tcp sport 80 counter drop");
    let start = Instant::now();
    std::thread::scope(|scope| {
        let address: SocketAddr = with_port(addr::POD[0], 80).parse().unwrap();
        let client =
            scope.spawn(move || network.client.run(|| TcpStream::connect_timeout(&address, REPLY_TIMEOUT)));
        eventually("the client starts to connect", || {
            (!network.client.nft("list table inet lossy").contains("packets 0 ")).then_some(())
        });
        let drain_thread = proxy.start_drain();
        eventually("the proxy drains", || status.check_readiness().err());
        network.client.nft("delete table inet lossy");
        let is_in_time = start.elapsed() < Duration::from_millis(900);
        let connect_result = client.join().unwrap();
        if is_in_time {
            let mut client = connect_result.expect("the closing proxy refused a handshake that had begun");
            client.write_all(b"just in time").unwrap();
            client.shutdown(Shutdown::Write).unwrap();
            assert_eq!(read_to_end(&accept(&backends[0])).unwrap(), b"just in time");
        }
        // Closes a connection that waits to be accepted.
        drop(backends);
        wait_for_end(drain_thread);
        is_in_time
    })
}

#[test]
fn draining_proxy_accepts_a_client_whose_handshake_has_begun() {
    isolated(|| {
        let network = Network::new();
        let is_in_time = (0..10).any(|_| check_handshake_during_start_of_drain(&network));
        assert!(is_in_time, "the machine is too busy for this test");
    });
}

#[test]
fn draining_proxy_without_connections_exits_before_the_drain_timeout() {
    isolated(|| {
        let network = Network::new();
        let mut proxy = start_proxy(&network.pod, FORWARD_ARGS);
        proxy.signal(Signal::TERM);
        eventually("the proxy is not ready", || (probe_status(&network.pod) != Some(200)).then_some(()));
        let (exit_status, elapsed) = proxy.wait_for_exit();
        assert!(exit_status.success() && elapsed < DEFAULT_DRAIN_TIMEOUT, "{exit_status} after {elapsed:?}");
    });
}

/// Sends a request from a new client and checks the response. Returns an error only if the connection is refused.
fn send_request(network: &Network, address: SocketAddr) -> Result<(), Error> {
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
fn drain_under_load_does_not_break_accepted_connections() {
    isolated(|| {
        let network = Network::new();
        let [short_requests, long_stream] = bind_backends(&network);
        std::thread::spawn(move || serve_requests(&short_requests));
        let forwards = ["tcp/80=10.96.3.7:80", "tcp/80=[fd00:96::7]:80"];
        let proxy = EmbeddedProxy::new(&network.pod, &forwards, |settings| {
            // On a busy machine the upload is slow, and clients pause.
            settings.drain_timeout = LONGER_THAN_ANY_TEST;
            settings.close_timeout = LONGER_THAN_ANY_TEST;
            settings.close_idle_timeout = LONGER_THAN_ANY_TEST;
        });
        let client = connect(&network, 1);
        let backend = accept(&long_stream);
        let address: SocketAddr = with_port(addr::POD[0], 80).parse().unwrap();
        let (completed_count, is_refused) = (AtomicU32::new(0), AtomicBool::new(false));
        std::thread::scope(|scope| {
            // One long upload runs while short connections are opened and closed.
            scope.spawn(|| {
                write_blocks(&client, 256 << 20).unwrap();
                client.shutdown(Shutdown::Write).unwrap();
            });
            let clients: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        let start = Instant::now();
                        while start.elapsed() < 20 * REPLY_TIMEOUT {
                            match send_request(&network, address) {
                                Ok(()) => _ = completed_count.fetch_add(1, Relaxed),
                                Err(_) => return is_refused.store(true, Relaxed),
                            }
                        }
                    })
                })
                .collect();
            eventually("short connections complete", || {
                (completed_count.load(Relaxed) > 50 || clients.iter().any(ScopedJoinHandle::is_finished))
                    .then_some(())
            });
            assert!(!is_refused.load(Relaxed), "a ready proxy refused a client");
            let drain_thread = proxy.start_drain();
            read_blocks(&backend, 256 << 20);
            assert!(!is_refused.load(Relaxed), "the draining proxy refused a client");
            backend.shutdown(Shutdown::Write).unwrap();
            for client in clients {
                client.join().unwrap();
            }
            wait_for_end(drain_thread);
        });
        assert!(is_refused.load(Relaxed), "the closing proxy still accepts clients");
    });
}

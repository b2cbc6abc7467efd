//! The end of a proxy: who is in may finish, and nobody is cut off who has been let in.

use std::io::{Error, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::streams::{read_blocks, write_blocks};
use super::{FORWARDS, accept, backends, connect, pair, ready, rest};
use crate::harness::addr::{self, with_port};
use crate::harness::proxy::probe_status;
use crate::harness::traffic::REPLY_TIMEOUT;
use crate::harness::{Network, eventually, isolated};

#[test]
fn sigterm_keeps_new_clients_out_and_ends_when_the_last_connection_does() {
    isolated(|| {
        let network = Network::new();
        let backends = backends(&network);
        let mut proxy = ready(&network.pod, FORWARDS);
        let (mut client, mut backend) = pair(&network, &backends, 0);
        proxy.signal(Signal::TERM);
        eventually("it is not ready any more", || (probe_status(&network.pod) == Some(503)).then_some(()));
        let to: SocketAddr = with_port(addr::POD[0], 80).parse().unwrap();
        eventually("nobody is let in", || {
            let tried = network.client.run(|| TcpStream::connect_timeout(&to, REPLY_TIMEOUT));
            tried.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused).then_some(())
        });
        client.write_all(b"still there?").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(rest(&backend).unwrap(), b"still there?");
        assert_eq!(probe_status(&network.pod), Some(503));
        backend.write_all(b"yes").unwrap();
        drop(backend);
        assert_eq!(rest(&client).unwrap(), b"yes");
        let (exit, after) = proxy.wait_for_exit();
        assert!(exit.success() && after < Duration::from_secs(2), "{exit} after {after:?}");
    });
}

#[test]
fn who_was_about_to_be_connected_when_sigterm_came_is_let_in() {
    isolated(|| {
        let network = Network::new();
        let backends = backends(&network);
        let mut proxy = ready(&network.pod, FORWARDS);
        // The proxy's answer to the client's first segment is lost, and comes again after a second.
        network.client.nft("add table inet lossy");
        network.client.nft("add chain inet lossy input { type filter hook input priority 0 ; }");
        network.client.nft("add rule inet lossy input tcp sport 80 counter drop");
        std::thread::scope(|scope| {
            let client = scope.spawn(|| connect(&network, 0));
            eventually("the client begins to connect", || {
                (!network.client.nft("list table inet lossy").contains("packets 0 ")).then_some(())
            });
            proxy.signal(Signal::TERM);
            proxy.wait_for_log("draining");
            network.client.nft("delete table inet lossy");
            let mut client = client.join().unwrap();
            client.write_all(b"just in time").unwrap();
            client.shutdown(Shutdown::Write).unwrap();
            assert_eq!(rest(&accept(&backends[0])).unwrap(), b"just in time");
        });
        assert!(proxy.wait_for_exit().0.success());
    });
}

#[test]
fn without_connections_sigterm_ends_it_at_once() {
    isolated(|| {
        let network = Network::new();
        let mut proxy = ready(&network.pod, FORWARDS);
        proxy.signal(Signal::TERM);
        let (exit, after) = proxy.wait_for_exit();
        assert!(exit.success() && after < Duration::from_secs(3), "{exit} after {after:?}");
    });
}

/// One client that asks, and checks all of the answer; an error only where it was not let in.
fn ask(network: &Network, to: SocketAddr) -> Result<(), Error> {
    let mut stream = network.client.run(|| TcpStream::connect_timeout(&to, REPLY_TIMEOUT))?;
    stream.set_read_timeout(Some(REPLY_TIMEOUT)).unwrap();
    let mut answered = || {
        stream.write_all(b"question")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).map(|_| answer)
    };
    let answer = answered().unwrap_or_else(|error| panic!("a client that was let in is cut off: {error}"));
    assert_eq!(answer, "answer");
    Ok(())
}

fn serve(listener: &TcpListener) {
    for mut stream in listener.incoming().map_while(Result::ok) {
        let mut question = [0; 8];
        if stream.read_exact(&mut question).is_ok() {
            stream.write_all(b"answer").unwrap();
        }
    }
}

#[test]
fn sigterm_under_load_cuts_nothing_that_could_have_finished() {
    isolated(|| {
        let network = Network::new();
        let [short, long] = backends(&network);
        std::thread::spawn(move || serve(&short));
        let mut proxy = ready(&network.pod, FORWARDS);
        let client = connect(&network, 1);
        let backend = accept(&long);
        let to: SocketAddr = with_port(addr::POD[0], 80).parse().unwrap();
        let (asked, refused) = (AtomicU32::new(0), AtomicBool::new(false));
        std::thread::scope(|scope| {
            // One that takes long, as those that take short come and go.
            scope.spawn(|| {
                write_blocks(&client, 256 << 20).unwrap();
                client.shutdown(Shutdown::Write).unwrap();
            });
            let clients: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        let start = Instant::now();
                        while start.elapsed() < 2 * REPLY_TIMEOUT {
                            match ask(&network, to) {
                                Ok(()) => _ = asked.fetch_add(1, Relaxed),
                                Err(_) => return refused.store(true, Relaxed),
                            }
                        }
                    })
                })
                .collect();
            eventually("clients come and go", || {
                (asked.load(Relaxed) > 50 || clients.iter().any(ScopedJoinHandle::is_finished)).then_some(())
            });
            assert!(!refused.load(Relaxed), "a client is refused by a ready proxy");
            proxy.signal(Signal::TERM);
            read_blocks(&backend, 256 << 20);
            for client in clients {
                client.join().unwrap();
            }
        });
        assert!(refused.load(Relaxed), "clients are still let in");
        drop((client, backend));
        let (exit, _) = proxy.wait_for_exit();
        assert!(exit.success(), "{exit}");
    });
}

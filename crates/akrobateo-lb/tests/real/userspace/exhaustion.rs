//! What is used up: connections, descriptors, pipes.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;

use rustix::pipe::{fcntl_setpipe_size, pipe};
use rustix::process::{Resource, getrlimit, prlimit};

use super::streams::{read_blocks, write_blocks};
use super::{FORWARDS, Inside, accept, backends, connect, metric, metrics, pair, ready, rest};
use crate::harness::process::lowest_free_descriptor;
use crate::harness::{Network, eventually, isolated};

#[test]
fn beyond_the_limit_of_connections_clients_wait_until_one_is_over() {
    isolated(|| {
        let network = Network::new();
        let backends = backends(&network);
        let inside = Inside::new(&network.pod, &["tcp/80=10.96.3.7:80"], |settings| settings.connections = 3);
        let mut open: Vec<_> = (0..2).map(|_| pair(&network, &backends, 0)).collect();
        assert_eq!(inside.metric("akrobateo_lb_connection_limit_reached_total", &[]), 0);
        open.push(pair(&network, &backends, 0));
        let mut waiting = connect(&network, 0);
        waiting.write_all(b"my turn").unwrap();
        waiting.shutdown(Shutdown::Write).unwrap();
        eventually("the limit is reached", || {
            (inside.metric("akrobateo_lb_connection_limit_reached_total", &[]) > 0).then_some(())
        });
        backends[0].set_nonblocking(true).unwrap();
        assert_eq!(backends[0].accept().unwrap_err().kind(), ErrorKind::WouldBlock);
        backends[0].set_nonblocking(false).unwrap();
        drop(open.pop());
        assert_eq!(rest(&accept(&backends[0])).unwrap(), b"my turn");
    });
}

#[test]
fn without_descriptors_clients_wait_and_those_who_are_in_are_served() {
    isolated(|| {
        let network = Network::new();
        let backends = backends(&network);
        let proxy = ready(&network.pod, FORWARDS);
        let mut open: Vec<_> = (0..10).map(|family| pair(&network, &backends, family % 2)).collect();
        let limit = getrlimit(Resource::Nofile);
        let mut short = limit;
        short.current = Some(lowest_free_descriptor(proxy.pid()));
        prlimit(Some(proxy.pid()), Resource::Nofile, short).unwrap();
        let mut waiting: Vec<_> = (0..5).map(|_| connect(&network, 0)).collect();
        for client in &mut waiting {
            client.write_all(b"let me in").unwrap();
            client.shutdown(Shutdown::Write).unwrap();
        }
        proxy.wait_for_log("descriptors or memory are used up: clients wait");
        for (client, backend) in &mut open {
            client.write_all(b"?").unwrap();
            backend.read_exact(&mut [0]).unwrap();
            backend.write_all(b"!").unwrap();
            client.read_exact(&mut [0]).unwrap();
        }
        prlimit(Some(proxy.pid()), Resource::Nofile, limit).unwrap();
        for _ in &waiting {
            assert_eq!(rest(&accept(&backends[0])).unwrap(), b"let me in");
        }
        assert!(metric(&metrics(&network.pod), "akrobateo_lb_accept_out_of_resources_total", &[]) > 0);
        assert!(proxy.log().matches("used up").count() < 5, "it says so all the time");
    });
}

#[test]
fn without_pipes_bytes_are_copied() {
    isolated(|| {
        let network = Network::new();
        let backends = backends(&network);
        let _proxy = ready(&network.pod, FORWARDS);
        let through = || {
            let (client, backend) = pair(&network, &backends, 0);
            let mut pipes = 0;
            std::thread::scope(|scope| {
                let writer = scope.spawn(|| {
                    write_blocks(&client, 64 << 20).unwrap();
                    client.shutdown(Shutdown::Write).unwrap();
                });
                scope.spawn(|| read_blocks(&backend, 64 << 20));
                while !writer.is_finished() {
                    pipes = pipes.max(metric(&metrics(&network.pod), "akrobateo_lb_pipes", &[]));
                }
            });
            pipes
        };
        assert!(through() > 0, "many bytes are not spliced");
        eventually("pipes are closed when they are not used", || {
            (metric(&metrics(&network.pod), "akrobateo_lb_pipes", &[]) == 0).then_some(())
        });
        // All that this user may have.
        let mut taken = Vec::new();
        for size in [1 << 20, 1 << 16] {
            let pipes = std::iter::from_fn(|| {
                let pipe = pipe().unwrap();
                fcntl_setpipe_size(&pipe.0, size).ok().map(|_| pipe)
            });
            taken.extend(pipes.take(200));
        }
        assert!(taken.len() < 200, "no limit of pipes is reached: this test needs an ordinary user's");
        assert_eq!(through(), 0);
        drop(taken);
        eventually("it tries again", || (through() > 0).then_some(()));
    });
}

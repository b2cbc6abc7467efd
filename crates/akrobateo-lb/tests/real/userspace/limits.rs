//! Limits: connections, file descriptors, pipes.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::time::{Duration, Instant};

use rustix::pipe::{fcntl_setpipe_size, pipe};
use rustix::process::{Resource, getrlimit, prlimit};

use super::streams::{read_blocks, write_blocks};
use super::{
    EmbeddedProxy, FORWARD_ARGS, accept, bind_backends, connect, connect_pair, fetch_metrics, read_to_end,
    start_proxy, sum_metric, with_timeouts,
};
use crate::harness::process::lowest_free_descriptor;
use crate::harness::{Network, eventually, isolated};

#[test]
fn clients_above_the_connection_limit_wait_for_a_free_place() {
    isolated(|| {
        let network = Network::new();
        let backends = bind_backends(&network);
        let proxy = EmbeddedProxy::new(&network.pod, &["tcp/80=10.96.3.7:80"], |settings| {
            settings.max_connections = 3;
        });
        let mut open_connections: Vec<_> = (0..2).map(|_| connect_pair(&network, &backends, 0)).collect();
        assert_eq!(proxy.sum_metric("akrobateo_lb_connection_limit_reached_total", &[]), 0);
        open_connections.push(connect_pair(&network, &backends, 0));
        let mut waiting_client = connect(&network, 0);
        waiting_client.write_all(b"request").unwrap();
        waiting_client.shutdown(Shutdown::Write).unwrap();
        eventually("the limit is reached", || {
            (proxy.sum_metric("akrobateo_lb_connection_limit_reached_total", &[]) > 0).then_some(())
        });
        backends[0].set_nonblocking(true).unwrap();
        assert_eq!(backends[0].accept().unwrap_err().kind(), ErrorKind::WouldBlock);
        backends[0].set_nonblocking(false).unwrap();
        drop(open_connections.pop());
        assert_eq!(read_to_end(&accept(&backends[0])).unwrap(), b"request");
    });
}

/// Returns the maximum number of log lines with one message since `start`. The rate limit allows one line per worker in
/// ten seconds.
pub(super) fn max_log_lines(start: Instant) -> usize {
    let worker_count = std::thread::available_parallelism().unwrap().get();
    let interval_count = 1 + start.elapsed().as_secs() / 10;
    worker_count * usize::try_from(interval_count).unwrap()
}

#[test]
fn new_clients_wait_but_open_connections_work_if_no_descriptor_is_free() {
    isolated(|| {
        let network = Network::new();
        let backends = bind_backends(&network);
        let proxy = start_proxy(&network.pod, FORWARD_ARGS);
        let mut open_connections: Vec<_> =
            (0..10).map(|number| connect_pair(&network, &backends, number % 2)).collect();
        let limit = getrlimit(Resource::Nofile);
        let mut lowered_limit = limit;
        lowered_limit.current = Some(lowest_free_descriptor(proxy.pid()));
        prlimit(Some(proxy.pid()), Resource::Nofile, lowered_limit).unwrap();
        let start = Instant::now();
        let mut waiting_clients: Vec<_> = (0..5).map(|_| connect(&network, 0)).collect();
        for client in &mut waiting_clients {
            client.write_all(b"request").unwrap();
            client.shutdown(Shutdown::Write).unwrap();
        }
        proxy.wait_for_log("out of file descriptors or memory: new clients wait");
        for (client, backend) in &mut open_connections {
            client.write_all(b"?").unwrap();
            backend.read_exact(&mut [0]).unwrap();
            backend.write_all(b"!").unwrap();
            client.read_exact(&mut [0]).unwrap();
        }
        prlimit(Some(proxy.pid()), Resource::Nofile, limit).unwrap();
        for _ in &waiting_clients {
            assert_eq!(read_to_end(&accept(&backends[0])).unwrap(), b"request");
        }
        assert!(
            sum_metric(&fetch_metrics(&network.pod), "akrobateo_lb_accept_out_of_resources_total", &[]) > 0
        );
        let line_count = proxy.log().matches("new clients wait").count();
        assert!(
            line_count <= max_log_lines(start),
            "the log message is not rate-limited: {line_count} lines"
        );
    });
}

#[test]
fn proxy_copies_bytes_if_no_pipe_is_available() {
    isolated(|| {
        let network = Network::new();
        let backends = bind_backends(&network);
        let _proxy = start_proxy(&network.pod, FORWARD_ARGS);
        let count_pipes_of_transfer = || {
            let (client, backend) = connect_pair(&network, &backends, 0);
            let mut pipe_count = 0;
            std::thread::scope(|scope| {
                let writer = scope.spawn(|| {
                    write_blocks(&client, 64 << 20).unwrap();
                    client.shutdown(Shutdown::Write).unwrap();
                });
                scope.spawn(|| read_blocks(&backend, 64 << 20));
                while !writer.is_finished() {
                    pipe_count =
                        pipe_count.max(sum_metric(&fetch_metrics(&network.pod), "akrobateo_lb_pipes", &[]));
                }
            });
            pipe_count
        };
        assert!(count_pipes_of_transfer() > 0, "the bytes of a long stream are not spliced");
        eventually("idle pipes are closed", || {
            (sum_metric(&fetch_metrics(&network.pod), "akrobateo_lb_pipes", &[]) == 0).then_some(())
        });
        // Other processes of this user may release pipe memory meanwhile, so the test tries again.
        let mut taken_pipes = Vec::new();
        eventually("the bytes are copied", || {
            // Uses up all pipe memory that this user may have.
            for size in [1 << 20, 1 << 16] {
                let pipes = std::iter::from_fn(|| {
                    let pipe = pipe().unwrap();
                    fcntl_setpipe_size(&pipe.0, size).ok().map(|_| pipe)
                });
                taken_pipes.extend(pipes.take(200));
            }
            assert!(
                taken_pipes.len() < 200,
                "the pipe limit was not reached: run this test as an ordinary user"
            );
            (count_pipes_of_transfer() == 0).then_some(())
        });
        drop(taken_pipes);
        eventually("pipes are used again", || (count_pipes_of_transfer() > 0).then_some(()));
    });
}

/// The idle timeout at the connection limit. On a busy machine, this time is still longer than the pauses of a
/// connection in use.
const IDLE_TIMEOUT: Duration = Duration::from_secs(4);

#[test]
fn idle_connection_is_closed_early_only_at_the_connection_limit() {
    isolated(|| {
        let network = Network::new();
        let backends = bind_backends(&network);
        let proxy = EmbeddedProxy::new(&network.pod, &["tcp/80=10.96.3.7:80"], |settings| {
            settings.max_connections = 2;
            settings.idle_timeout_at_connection_limit = IDLE_TIMEOUT;
        });
        let (idle_client, _idle_backend) = connect_pair(&network, &backends, 0);
        let (mut busy_client, mut busy_backend) = connect_pair(&network, &backends, 0);
        let mut use_busy_connection = || {
            busy_client.write_all(b"?").unwrap();
            busy_backend.read_exact(&mut [0]).unwrap();
        };
        let start = Instant::now();
        while start.elapsed() < IDLE_TIMEOUT + Duration::from_secs(1) {
            use_busy_connection();
            std::thread::sleep(Duration::from_millis(50));
        }
        assert_eq!(proxy.sum_metric("akrobateo_lb_open_connections", &[]), 2);
        let mut waiting_client = connect(&network, 0);
        waiting_client.write_all(b"request").unwrap();
        waiting_client.shutdown(Shutdown::Write).unwrap();
        backends[0].set_nonblocking(true).unwrap();
        let backend = eventually("the waiting client gets the place of the idle connection", || {
            use_busy_connection();
            backends[0].accept().ok().map(|(stream, _)| with_timeouts(stream))
        });
        backend.set_nonblocking(false).unwrap();
        assert_eq!(read_to_end(&backend).unwrap(), b"request");
        assert_eq!(read_to_end(&idle_client).unwrap_err().kind(), ErrorKind::ConnectionReset);
    });
}

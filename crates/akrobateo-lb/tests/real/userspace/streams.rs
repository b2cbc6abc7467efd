//! Bytes go both ways, in order, to their end, and no faster than they are read.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use super::{FORWARDS, Inside, backends, break_off, metric, metrics, pair, ready, rest};
use crate::harness::process::resident_memory;
use crate::harness::{Network, eventually, isolated};

/// More than fits into the sockets' buffers on the way.
const MUCH: usize = 64 << 20;
/// A block of bytes of which no two neighbours are the same; of odd length, so that reads don't fit it.
fn block() -> Vec<u8> {
    (0..1_048_573_u32).map(|at| u8::try_from(at.wrapping_mul(2_654_435_761) >> 24).unwrap()).collect()
}

/// Writes the block again and again, `len` bytes in all.
pub(super) fn write_blocks(mut stream: &TcpStream, len: usize) -> std::io::Result<()> {
    let block = block();
    let mut left = len;
    while left > 0 {
        let some = left.min(block.len());
        stream.write_all(&block[..some])?;
        left -= some;
    }
    Ok(())
}

/// Reads to the end, and checks that the block came again and again, `len` bytes in all.
pub(super) fn read_blocks(mut stream: &TcpStream, len: usize) {
    let block = block();
    let mut buffer = vec![0; 1 << 18];
    let mut at = 0;
    loop {
        let read = stream.read(&mut buffer).unwrap();
        if read == 0 {
            break;
        }
        let mut rest = &buffer[..read];
        while !rest.is_empty() {
            let expected = &block[at % block.len()..];
            let some = rest.len().min(expected.len());
            assert!(rest[..some] == expected[..some], "wrong bytes after {at}");
            at += some;
            rest = &rest[some..];
        }
    }
    assert_eq!(at, len);
}

#[test]
fn each_side_may_end_first_and_still_gets_all_of_the_other() {
    isolated(|| {
        let network = Network::new();
        let backends = backends(&network);
        let _proxy = ready(&network.pod, FORWARDS);
        for family in 0..2 {
            let (mut client, backend) = pair(&network, &backends, family);
            client.write_all(b"question").unwrap();
            client.shutdown(Shutdown::Write).unwrap();
            assert_eq!(rest(&backend).unwrap(), b"question");
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    write_blocks(&backend, MUCH).unwrap();
                    backend.shutdown(Shutdown::Write).unwrap();
                });
                read_blocks(&client, MUCH);
            });
            let (client, mut backend) = pair(&network, &backends, family);
            backend.write_all(b"greeting").unwrap();
            backend.shutdown(Shutdown::Write).unwrap();
            assert_eq!(rest(&client).unwrap(), b"greeting");
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    write_blocks(&client, MUCH).unwrap();
                    client.shutdown(Shutdown::Write).unwrap();
                });
                read_blocks(&backend, MUCH);
            });
        }
        eventually("nothing is left of them", || {
            (metric(&metrics(&network.pod), "akrobateo_lb_open_connections", &[]) == 0).then_some(())
        });
    });
}

#[test]
fn a_reset_of_either_side_is_a_reset_for_the_other() {
    isolated(|| {
        let network = Network::new();
        let backends = backends(&network);
        let _proxy = ready(&network.pod, FORWARDS);
        let reset =
            |stream: &TcpStream| assert_eq!(rest(stream).unwrap_err().kind(), ErrorKind::ConnectionReset);
        let (client, backend) = pair(&network, &backends, 0);
        break_off(client);
        reset(&backend);
        let (client, backend) = pair(&network, &backends, 1);
        break_off(backend);
        reset(&client);
        // Also of one that has ended its own direction before.
        let (client, backend) = pair(&network, &backends, 0);
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(rest(&backend).unwrap(), b"");
        break_off(backend);
        reset(&client);
    });
}

#[test]
fn a_slow_reader_slows_its_writer_down_and_gets_every_byte() {
    isolated(|| {
        let network = Network::new();
        let backends = backends(&network);
        let proxy = ready(&network.pod, FORWARDS);
        let before = resident_memory(proxy.pid()).unwrap();
        let (client, backend) = pair(&network, &backends, 0);
        let impatient = Duration::from_millis(300);
        backend.set_write_timeout(Some(impatient)).unwrap();
        // Writes until nothing more is taken for a while.
        let zeros = vec![0; 1 << 16];
        let mut written = 0;
        while let Ok(some) = (&backend).write(&zeros) {
            written += some;
            assert!(written < MUCH, "the proxy takes whatever it gets");
        }
        assert!(written > 1 << 16);
        let grown = resident_memory(proxy.pid()).unwrap().saturating_sub(before);
        assert!(grown < 1 << 20, "it holds {grown} bytes for one connection");
        drop(backend);
        let all = rest(&client).unwrap();
        assert!(all.len() == written && all.iter().all(|byte| *byte == 0));
    });
}

#[test]
fn gigabytes_arrive_as_they_were_sent_both_ways_at_once() {
    isolated(|| {
        let network = Network::new();
        let backends = backends(&network);
        let _proxy = ready(&network.pod, &format!("{FORWARDS} --forward=tcp/81=10.96.3.7:80"));
        let (client, backend) = pair(&network, &backends, 0);
        // More than 32 bits can count, in both directions together.
        let len = (2 << 30) + 12_345;
        std::thread::scope(|scope| {
            for end in [&client, &backend] {
                scope.spawn(move || {
                    write_blocks(end, len).unwrap();
                    end.shutdown(Shutdown::Write).unwrap();
                });
                scope.spawn(move || read_blocks(end, len));
            }
        });
        let text = metrics(&network.pod);
        for direction in ["direction=\"in\"", "direction=\"out\""] {
            let count = metric(&text, "akrobateo_lb_bytes_total", &["port=\"80\"", "IPv4", direction]);
            assert_eq!(count, len as u64, "{direction}");
        }
    });
}

#[test]
fn a_connection_that_is_silent_for_too_long_is_ended_and_one_that_is_not_stays() {
    isolated(|| {
        let network = Network::new();
        let backends = backends(&network);
        let forwards = ["tcp/80=10.96.3.7:80"];
        let inside = Inside::new(&network.pod, &forwards, |settings| settings.idle = Duration::from_secs(1));
        let (silent, _backend) = pair(&network, &backends, 0);
        let (mut talking, mut backend) = pair(&network, &backends, 0);
        let over = || {
            talking.write_all(b"?").unwrap();
            backend.read_exact(&mut [0]).unwrap();
            (inside.metric("akrobateo_lb_open_connections", &[]) == 1).then_some(())
        };
        eventually("the silent one is over", over);
        assert_eq!(rest(&silent).unwrap_err().kind(), ErrorKind::ConnectionReset);
        talking.write_all(b"!").unwrap();
        backend.read_exact(&mut [0]).unwrap();
    });
}

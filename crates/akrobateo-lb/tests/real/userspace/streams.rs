//! TCP streams: order, half-close, reset, back-pressure and idle timeout.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use super::{
    EmbeddedProxy, FORWARD_ARGS, bind_backends, close_with_reset, connect_pair, fetch_metrics, read_to_end,
    start_proxy, sum_metric,
};
use crate::harness::process::resident_memory_bytes;
use crate::harness::{Network, eventually, isolated};

/// Length of a long stream, in bytes. All socket buffers on the path together are smaller.
const LONG_STREAM_LENGTH: usize = 64 << 20;

/// Returns a block of varying bytes. The block's length is odd, so that reads do not end at the end of a block.
fn build_block() -> Vec<u8> {
    (0..1_048_573_u32).map(|index| u8::try_from(index.wrapping_mul(2_654_435_761) >> 24).unwrap()).collect()
}

/// Writes the block repeatedly, until `length` bytes are written.
pub(super) fn write_blocks(mut stream: &TcpStream, length: usize) -> std::io::Result<()> {
    let block = build_block();
    let mut remaining_length = length;
    while remaining_length > 0 {
        let chunk = remaining_length.min(block.len());
        stream.write_all(&block[..chunk])?;
        remaining_length -= chunk;
    }
    Ok(())
}

/// Reads to the end of the stream. Asserts that the stream has `length` bytes and consists of repeated blocks.
pub(super) fn read_blocks(mut stream: &TcpStream, length: usize) {
    let block = build_block();
    let mut buffer = vec![0; 1 << 18];
    let mut position = 0;
    loop {
        let read_length = stream.read(&mut buffer).unwrap();
        if read_length == 0 {
            break;
        }
        let mut unchecked_bytes = &buffer[..read_length];
        while !unchecked_bytes.is_empty() {
            let expected = &block[position % block.len()..];
            let chunk = unchecked_bytes.len().min(expected.len());
            assert!(unchecked_bytes[..chunk] == expected[..chunk], "wrong bytes after byte {position}");
            position += chunk;
            unchecked_bytes = &unchecked_bytes[chunk..];
        }
    }
    assert_eq!(position, length);
}

#[test]
fn half_closed_connection_still_receives_the_whole_stream() {
    isolated(|| {
        let network = Network::new();
        let backends = bind_backends(&network);
        let _proxy = start_proxy(&network.pod, FORWARD_ARGS);
        for family_index in 0..2 {
            let (mut client, backend) = connect_pair(&network, &backends, family_index);
            client.write_all(b"question").unwrap();
            client.shutdown(Shutdown::Write).unwrap();
            assert_eq!(read_to_end(&backend).unwrap(), b"question");
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    write_blocks(&backend, LONG_STREAM_LENGTH).unwrap();
                    backend.shutdown(Shutdown::Write).unwrap();
                });
                read_blocks(&client, LONG_STREAM_LENGTH);
            });
            let (client, mut backend) = connect_pair(&network, &backends, family_index);
            backend.write_all(b"greeting").unwrap();
            backend.shutdown(Shutdown::Write).unwrap();
            assert_eq!(read_to_end(&client).unwrap(), b"greeting");
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    write_blocks(&client, LONG_STREAM_LENGTH).unwrap();
                    client.shutdown(Shutdown::Write).unwrap();
                });
                read_blocks(&backend, LONG_STREAM_LENGTH);
            });
        }
        eventually("all connections are closed", || {
            (sum_metric(&fetch_metrics(&network.pod), "akrobateo_lb_open_connections", &[]) == 0)
                .then_some(())
        });
    });
}

#[test]
fn reset_of_one_side_resets_the_other_side() {
    isolated(|| {
        let network = Network::new();
        let backends = bind_backends(&network);
        let _proxy = start_proxy(&network.pod, FORWARD_ARGS);
        let assert_reset = |stream: &TcpStream| {
            assert_eq!(read_to_end(stream).unwrap_err().kind(), ErrorKind::ConnectionReset);
        };
        let (client, backend) = connect_pair(&network, &backends, 0);
        close_with_reset(client);
        assert_reset(&backend);
        let (client, backend) = connect_pair(&network, &backends, 1);
        close_with_reset(backend);
        assert_reset(&client);
        // A client that has already ended its upload also sees the reset.
        let (client, backend) = connect_pair(&network, &backends, 0);
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_to_end(&backend).unwrap(), b"");
        close_with_reset(backend);
        assert_reset(&client);
    });
}

#[test]
fn slow_reader_blocks_its_writer_and_receives_every_byte() {
    isolated(|| {
        let network = Network::new();
        let backends = bind_backends(&network);
        let proxy = start_proxy(&network.pod, FORWARD_ARGS);
        let memory_before = resident_memory_bytes(proxy.pid()).unwrap();
        let (client, backend) = connect_pair(&network, &backends, 0);
        backend.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
        // Write until the proxy does not accept bytes for a while.
        let zeros = vec![0; 1 << 16];
        let mut written_length = 0;
        while let Ok(length) = (&backend).write(&zeros) {
            written_length += length;
            assert!(
                written_length < LONG_STREAM_LENGTH,
                "the proxy still accepts bytes, although the backend reads none"
            );
        }
        assert!(written_length > 1 << 16);
        let memory_growth = resident_memory_bytes(proxy.pid()).unwrap().saturating_sub(memory_before);
        assert!(memory_growth < 1 << 20, "the proxy holds {memory_growth} bytes for one connection");
        drop(backend);
        let received_bytes = read_to_end(&client).unwrap();
        assert!(received_bytes.len() == written_length && received_bytes.iter().all(|byte| *byte == 0));
    });
}

#[test]
fn gigabytes_arrive_unchanged_in_both_directions() {
    isolated(|| {
        let network = Network::new();
        let backends = bind_backends(&network);
        let _proxy = start_proxy(&network.pod, &format!("{FORWARD_ARGS} --forward=tcp/81=10.96.3.7:80"));
        let (client, backend) = connect_pair(&network, &backends, 0);
        // The total number of bytes of both directions does not fit into 32 bits.
        let length = (2 << 30) + 12_345;
        std::thread::scope(|scope| {
            for stream in [&client, &backend] {
                scope.spawn(move || {
                    write_blocks(stream, length).unwrap();
                    stream.shutdown(Shutdown::Write).unwrap();
                });
                scope.spawn(move || read_blocks(stream, length));
            }
        });
        let text = fetch_metrics(&network.pod);
        for direction in ["direction=\"in\"", "direction=\"out\""] {
            let count = sum_metric(&text, "akrobateo_lb_bytes_total", &["port=\"80\"", "IPv4", direction]);
            assert_eq!(count, length as u64, "{direction}");
        }
    });
}

#[test]
fn idle_timeout_closes_only_silent_connections() {
    isolated(|| {
        let network = Network::new();
        let backends = bind_backends(&network);
        let forwards = ["tcp/80=10.96.3.7:80"];
        let proxy = EmbeddedProxy::new(&network.pod, &forwards, |settings| {
            settings.idle_timeout = Duration::from_secs(4);
        });
        let (silent_client, _silent_backend) = connect_pair(&network, &backends, 0);
        let (mut busy_client, mut busy_backend) = connect_pair(&network, &backends, 0);
        let is_only_the_busy_connection_open = || {
            busy_client.write_all(b"?").unwrap();
            busy_backend.read_exact(&mut [0]).unwrap();
            (proxy.sum_metric("akrobateo_lb_open_connections", &[]) == 1).then_some(())
        };
        eventually("the silent connection is closed", is_only_the_busy_connection_open);
        assert_eq!(read_to_end(&silent_client).unwrap_err().kind(), ErrorKind::ConnectionReset);
        busy_client.write_all(b"!").unwrap();
        busy_backend.read_exact(&mut [0]).unwrap();
    });
}

/// Reads until the end of the stream, or until a reset. Returns the bytes, and true if the stream was reset.
fn read_to_end_or_reset(mut stream: &TcpStream) -> (Vec<u8>, bool) {
    let mut bytes = Vec::new();
    let result = stream.read_to_end(&mut bytes);
    (bytes, result.is_err_and(|error| error.kind() == ErrorKind::ConnectionReset))
}

#[test]
fn client_receives_the_whole_answer_before_the_reset() {
    isolated(|| {
        let network = Network::new();
        // The client's buffer holds only a part of the answer.
        network.client.set_sysctl("ipv4/tcp_rmem", "4096 16384 16384");
        let backends = bind_backends(&network);
        let _proxy = start_proxy(&network.pod, FORWARD_ARGS);
        for (round, is_sending) in [(1, false), (2, true)] {
            let (mut client, mut backend) = connect_pair(&network, &backends, 0);
            client.write_all(&vec![1; 100_000]).unwrap();
            backend.read_exact(&mut [0]).unwrap();
            backend.write_all(&vec![2; 100_000]).unwrap();
            eventually("the proxy has taken the answer", || {
                let labels = ["IPv4", "direction=\"out\""];
                let sent_byte_count =
                    sum_metric(&fetch_metrics(&network.pod), "akrobateo_lb_bytes_total", &labels);
                (sent_byte_count == round * 100_000).then_some(())
            });
            drop(backend);
            if is_sending {
                let _ = client.write(&[1; 1_000]);
            }
            // The proxy sees the reset of the target before the client reads.
            std::thread::sleep(Duration::from_millis(200));
            let (answer, is_reset) = read_to_end_or_reset(&client);
            assert_eq!((answer.len(), is_reset), (100_000, true), "client is sending: {is_sending}");
        }
        eventually("all connections are closed", || {
            (sum_metric(&fetch_metrics(&network.pod), "akrobateo_lb_open_connections", &[]) == 0)
                .then_some(())
        });
    });
}

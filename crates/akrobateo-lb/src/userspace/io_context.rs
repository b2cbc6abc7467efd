//! The memory, pipes and clock that all connections of a worker share. No I/O of its own.

use super::pipes::Pipes;

/// Bytes of the buffer that the connections of a worker share.
pub(super) const BUFFER_LEN: usize = 64 << 10;
/// Bytes of one worker that may wait in user memory for slow readers. Above this limit, bytes wait in the kernel. This
/// costs one more system call per read.
const MAX_BUFFERED_BYTES: usize = 4 << 20;

/// The memory, pipes and clock that all connections of a worker share.
#[derive(Debug)]
pub(super) struct IoContext {
    pub(super) pipes: Pipes,
    /// Holds bytes only during one read and write.
    pub(super) buffer: Box<[u8]>,
    /// Bytes that all connections of the worker have read but not sent, without those in pipes.
    pub(super) buffered_bytes: usize,
    /// Milliseconds from the worker's start to its last wake-up.
    pub(super) now: u64,
}

impl IoContext {
    pub(super) fn new() -> Self {
        Self {
            pipes: Pipes::default(),
            buffer: vec![0; BUFFER_LEN].into_boxed_slice(),
            buffered_bytes: 0,
            now: 0,
        }
    }

    /// Returns whether no more bytes may wait in user memory.
    pub(super) const fn is_buffer_limit_reached(&self) -> bool {
        self.buffered_bytes >= MAX_BUFFERED_BYTES
    }
}

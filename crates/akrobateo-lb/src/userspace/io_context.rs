//! The memory, pipes and clock that all connections of a worker share. Does no I/O itself.

use super::pipe_pool::PipePool;

/// Size of the buffer that the connections of a worker share, in bytes.
pub(super) const BUFFER_LENGTH: usize = 64 << 10;
/// Maximum number of bytes that wait in a worker's memory for slow readers. Above this limit, further bytes
/// wait in the kernel, and each read needs one more system call.
const MAX_BUFFERED_BYTES: usize = 4 << 20;

/// The memory, pipes and clock that all connections of a worker share.
#[derive(Debug)]
pub(super) struct IoContext {
    pub(super) pipes: PipePool,
    /// The buffer contains bytes only between a read and the next write.
    pub(super) buffer: Box<[u8]>,
    /// The number of bytes that the worker's connections have received and not yet sent. Bytes in pipes are not
    /// included.
    pub(super) buffered_bytes: usize,
    /// Milliseconds from the worker's start to its last wake-up.
    pub(super) now_ms: u64,
}

impl IoContext {
    pub(super) fn new() -> Self {
        Self {
            pipes: PipePool::default(),
            buffer: vec![0; BUFFER_LENGTH].into_boxed_slice(),
            buffered_bytes: 0,
            now_ms: 0,
        }
    }

    /// Returns true if no more bytes may wait in the worker's memory.
    pub(super) const fn is_buffer_limit_reached(&self) -> bool {
        self.buffered_bytes >= MAX_BUFFERED_BYTES
    }
}

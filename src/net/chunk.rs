//! Buffers lent for as long as they hold something: a connection that is quiet has none.

use std::cell::RefCell;
use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};

/// Bytes of a chunk: two TLS records. Twice as much takes no less CPU time, half as much takes a quarter more.
pub(super) const CHUNK: usize = 32 << 10;
/// Buffers that a thread keeps for the next borrower: as much as a tunnel's peer may leave unread.
const SPARE: usize = 16;

thread_local! {
    static SPARES: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
}

/// Bytes that were read and are wanted by somebody, in a buffer that goes back to the thread when dropped.
#[derive(Debug)]
pub(super) struct Chunk {
    buffer: Box<[u8]>,
    held: Range<usize>,
}

impl Chunk {
    /// An empty one.
    pub(super) fn new() -> Self {
        let spare = SPARES.try_with(|spares| spares.borrow_mut().pop()).ok().flatten();
        Self { buffer: spare.unwrap_or_else(|| vec![0; CHUNK].into()), held: 0..0 }
    }

    /// Reads once, as much as there is room for. 0: the end, or no room.
    pub(super) fn poll_read<S>(&mut self, cx: &mut Context<'_>, from: &mut S) -> Poll<io::Result<usize>>
    where
        S: AsyncRead + Unpin,
    {
        let mut buf = ReadBuf::new(self.buffer.get_mut(self.held.end..).unwrap_or_default());
        ready!(Pin::new(from).poll_read(cx, &mut buf))?;
        let count = buf.filled().len();
        self.held.end += count;
        Poll::Ready(Ok(count))
    }

    /// What it holds.
    pub(super) fn bytes(&self) -> &[u8] {
        self.buffer.get(self.held.clone()).unwrap_or_default()
    }

    /// Forgets the first `count` bytes.
    pub(super) fn consume(&mut self, count: usize) {
        self.held.start += count;
    }

    pub(super) fn is_full(&self) -> bool {
        self.held.end == CHUNK
    }
}

impl AsRef<[u8]> for Chunk {
    fn as_ref(&self) -> &[u8] {
        self.bytes()
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        let buffer = std::mem::take(&mut self.buffer);
        // A thread that ends keeps nothing.
        let _ended = SPARES.try_with(|spares| {
            let mut spares = spares.borrow_mut();
            if spares.len() < SPARE {
                spares.push(buffer);
            }
        });
    }
}

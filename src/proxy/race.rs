//! Who speaks first? Finding out what a connection carries without ever waiting for a deadline.
//!
//! Where both HTTP and opaque bytes may come, we cannot know whether the client or the server begins. To wait for the
//! client alone stalls every protocol in which the server greets first (MySQL, SMTP). So while the client's first
//! bytes are looked at, the opaque target is dialled: whichever side speaks first decides. What was dialled in vain is
//! closed again; a destination that was HTTP before is dialled only when its client hesitates.
//!
//! Whoever may not be dialled is not handed to [`race`]: policy is checked before.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use super::tcp::Opened;
use crate::error::ProxyError;
use crate::net::{Protocol, Replay};

/// How long the client of a destination that was HTTP before may hesitate until the opaque target is dialled.
const HESITATION: Duration = Duration::from_millis(50);
/// How long the client may take to say something when the opaque target cannot be reached: HTTP gets a proper answer.
const LAST_WORD: Duration = Duration::from_millis(200);
/// How long it is remembered what a destination was.
const MEMORY: Duration = Duration::from_mins(5);
/// Destinations that are remembered, at most.
const REMEMBERED: usize = 4096;

/// What was found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// The client spoke first, and this.
    Client(Protocol),
    /// The server did.
    Server,
    /// Nobody did, and there is no server.
    Nobody,
}

/// What was found out, and the dialled target: always, unless it is HTTP.
pub(super) type Heard = (Word, Option<Result<Opened, ProxyError>>);

/// What connections to a destination turned out to be, for a while.
#[derive(Debug, Default)]
pub struct Memory(Mutex<HashMap<SocketAddr, (Word, Instant)>>);

/// Finds out who speaks first, and what.
///
/// # Errors
/// When the client's connection breaks.
///
/// # Cancel safety
/// What the client said is kept in `stream`; what was dialled is closed.
pub(super) async fn race(
    stream: &mut Replay<TcpStream>,
    expected: Option<Word>,
    dial: impl Future<Output = Result<Opened, ProxyError>>,
) -> io::Result<Heard> {
    let mut dial = pin!(dial);
    let mut opened = None;
    let word = {
        let mut client = pin!(stream.first_word());
        let mut hesitation = pin!(sleep(HESITATION));
        let mut last_word = pin!(sleep(LAST_WORD));
        let mut dialling = !expected.is_some_and(Word::is_http);
        loop {
            tokio::select! {
                biased;
                protocol = &mut client => break Word::Client(protocol?),
                () = &mut hesitation, if !dialling => dialling = true,
                result = &mut dial, if dialling && opened.is_none() => {
                    last_word.as_mut().reset(Instant::now() + LAST_WORD);
                    opened = Some(result);
                }
                () = speaks(&mut opened), if matches!(opened, Some(Ok(_))) => break Word::Server,
                () = &mut last_word, if matches!(opened, Some(Err(_))) => break Word::Nobody,
            }
        }
    };
    if !word.is_http() && opened.is_none() {
        opened = Some(dial.await);
    }
    Ok((word, opened))
}

async fn speaks(opened: &mut Option<Result<Opened, ProxyError>>) {
    if let Some(Ok(opened)) = opened {
        opened.speaks().await;
    }
}

impl Word {
    pub(super) fn is_http(self) -> bool {
        matches!(self, Self::Client(Protocol::Http1 | Protocol::Http2))
    }

    /// For metrics.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Client(Protocol::Http1) => "http1",
            Self::Client(Protocol::Http2) => "http2",
            Self::Client(Protocol::Tls) => "tls",
            Self::Client(Protocol::Opaque) => "opaque",
            Self::Server => "server_first",
            Self::Nobody => "nothing",
        }
    }
}

impl Memory {
    /// What `destination` was, if that is not too long ago.
    pub(super) fn recall(&self, destination: SocketAddr, now: Instant) -> Option<Word> {
        let memory = self.0.lock();
        memory.get(&destination).filter(|(_, at)| now < *at + MEMORY).map(|(word, _)| *word)
    }

    /// Remembers what `destination` is. When there is no room, all that is too old is forgotten, or else everything:
    /// it costs one dial in vain per destination.
    pub(super) fn remember(&self, destination: SocketAddr, word: Word, now: Instant) {
        let mut memory = self.0.lock();
        if memory.len() >= REMEMBERED && !memory.contains_key(&destination) {
            memory.retain(|_, (_, at)| now < *at + MEMORY);
            if memory.len() >= REMEMBERED {
                memory.clear();
            }
        }
        memory.insert(destination, (word, now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_destination_was_is_forgotten_after_a_while_and_when_there_are_too_many() {
        let (memory, start) = (Memory::default(), Instant::now());
        let at = |port: u16| SocketAddr::from(([10, 0, 0, 1], port));
        memory.remember(at(1), Word::Server, start);
        assert_eq!(memory.recall(at(1), start + MEMORY - Duration::from_secs(1)), Some(Word::Server));
        assert_eq!(memory.recall(at(1), start + MEMORY), None);
        for port in 2..6000 {
            memory.remember(at(port), Word::Server, start + MEMORY);
        }
        assert!(memory.0.lock().len() <= REMEMBERED);
        assert_eq!(memory.recall(at(5999), start + MEMORY), Some(Word::Server));
    }
}

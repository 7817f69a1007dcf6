//! Which server does a TLS client ask for? Reads the ClientHello, the one message of TLS that is in the clear, from
//! the first bytes of a connection. Pure: the caller reads, decides how long to wait, and passes all bytes on.
//!
//! Not rustls' `Acceptor`: that judges whether *it* could serve the client, and so refuses hellos that are none of our
//! business when the application speaks TLS itself (no `signature_algorithms`, which TLS 1.2 allows), and logs
//! what a peer sent.

use std::borrow::Cow;

use pillion_wire::name::host_name;

/// No verdict needs more bytes than this: the largest record with its header (RFC 8446, section 5.1).
///
/// A post-quantum hello has about 1.8 KiB; rustls and OpenSSL take 16 KiB and more.
pub const MAX_CLIENT_HELLO: usize = HEADER + (1 << 14);

/// `ContentType type; ProtocolVersion legacy_record_version; uint16 length` (RFC 8446, section 5.1).
const HEADER: usize = 5;
/// More records than this for one hello are no client that we know, but someone who hides.
const MAX_RECORDS: usize = 64;
/// `HandshakeType msg_type; uint24 length` (RFC 8446, section 4).
const HANDSHAKE_HEADER: usize = 4;

const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: u16 = 0;
const ALPN: u16 = 16;
const HOST_NAME: u8 = 0;

/// What a client asks for (RFC 8446, section 4.1.2; the same in RFC 5246, section 7.4.1.2).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientHello {
    /// The host that the client asks for, as [`host_name`] returns it. None also for an IP address and for what is no
    /// host name: such a name chooses nothing.
    pub sni: Option<String>,
    /// The protocols that the client offers inside, in its order (RFC 7301).
    pub alpn: Vec<Vec<u8>>,
}

/// What can be said of the bytes so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientHelloVerdict {
    /// More bytes are needed, [`MAX_CLIENT_HELLO`] in all at most.
    More,
    /// A whole ClientHello.
    Is(ClientHello),
    /// No ClientHello, or a malformed, ambiguous or oversized one.
    Unreadable,
}

/// Judges the first bytes of a connection. Bytes after the hello change nothing.
pub fn client_hello(bytes: &[u8]) -> ClientHelloVerdict {
    let bounded = bytes.get(..MAX_CLIENT_HELLO).unwrap_or(bytes);
    let whole = bounded.len() == MAX_CLIENT_HELLO;
    match message(bounded) {
        Ok(Some(body)) => ClientHello::read(&body).map_or(ClientHelloVerdict::Unreadable, ClientHelloVerdict::Is),
        Ok(None) if !whole => ClientHelloVerdict::More,
        Ok(None) | Err(NotOne) => ClientHelloVerdict::Unreadable,
    }
}

/// These bytes do not begin a ClientHello.
struct NotOne;

/// The body of the first handshake message, from as many records as it takes; none: it is not all there yet.
fn message(bytes: &[u8]) -> Result<Option<Cow<'_, [u8]>>, NotOne> {
    let mut rest = bytes;
    let mut joined = Cow::Borrowed(&[][..]);
    for _ in 0..MAX_RECORDS {
        let Some(fragment) = fragment(&mut rest)? else { return Ok(None) };
        if joined.is_empty() {
            joined = Cow::Borrowed(fragment);
        } else {
            joined.to_mut().extend_from_slice(fragment);
        }
        if joined.first().is_some_and(|kind| *kind != CLIENT_HELLO) {
            return Err(NotOne);
        }
        if let Some(&[_, high, middle, low]) = joined.first_chunk::<HANDSHAKE_HEADER>() {
            let length = u32::from_be_bytes([0, high, middle, low]) as usize;
            if length > MAX_CLIENT_HELLO {
                return Err(NotOne);
            }
            let end = HANDSHAKE_HEADER + length;
            if joined.len() >= end {
                return Ok(Some(match joined {
                    Cow::Borrowed(joined) => Cow::Borrowed(joined.get(HANDSHAKE_HEADER..end).unwrap_or_default()),
                    Cow::Owned(joined) => Cow::Owned(joined.get(HANDSHAKE_HEADER..end).unwrap_or_default().to_vec()),
                }));
            }
        }
    }
    Err(NotOne)
}

/// Takes what is there of the next record's content off `rest` (RFC 8446, section 5.1); none: not even its header is.
fn fragment<'a>(rest: &mut &'a [u8]) -> Result<Option<&'a [u8]>, NotOne> {
    if rest.first().is_some_and(|kind| *kind != HANDSHAKE) || rest.get(1).is_some_and(|major| *major != 3) {
        return Err(NotOne);
    }
    let Some((&[_, _, _, high, low], content)) = rest.split_first_chunk::<HEADER>() else { return Ok(None) };
    let length = usize::from(u16::from_be_bytes([high, low]));
    // "Implementations MUST NOT send zero-length fragments of Handshake types."
    if length == 0 || length > 1 << 14 {
        return Err(NotOne);
    }
    let (fragment, after) = content.split_at(length.min(content.len()));
    *rest = after;
    Ok(Some(fragment))
}

impl ClientHello {
    /// None: it is malformed.
    fn read(body: &[u8]) -> Option<Self> {
        let mut body = Reader(body);
        body.take(2 + 32)?; // legacy_version, random
        body.vector8().filter(|session| session.0.len() <= 32)?;
        body.vector16().filter(|suites| suites.0.len() >= 2 && suites.0.len() % 2 == 0)?;
        body.vector8().filter(|compression| !compression.0.is_empty())?;
        let mut hello = Self::default();
        if body.0.is_empty() {
            return Some(hello); // Before TLS 1.3 the extensions may be missing altogether.
        }
        let mut extensions = body.vector16().filter(|_| body.0.is_empty())?;
        // "There MUST NOT be more than one extension of the same type": two servers could read two names.
        let (mut named, mut offered) = (false, false);
        while !extensions.0.is_empty() {
            let (kind, content) = (extensions.u16()?, extensions.vector16()?);
            match kind {
                SERVER_NAME if !std::mem::replace(&mut named, true) => hello.sni = server_name(content)?,
                ALPN if !std::mem::replace(&mut offered, true) => hello.alpn = protocols(content)?,
                SERVER_NAME | ALPN => return None,
                _ => {}
            }
        }
        Some(hello)
    }
}

/// RFC 6066, section 3. The outer none: malformed, or more than one host name, which it forbids.
fn server_name(mut extension: Reader<'_>) -> Option<Option<String>> {
    let mut names = extension.vector16().filter(|names| extension.0.is_empty() && !names.0.is_empty())?;
    let mut host = None;
    while !names.0.is_empty() {
        if names.take(1)? != [HOST_NAME] {
            break; // No other kind was ever defined, and so neither was its length.
        }
        let name = names.vector16().filter(|name| !name.0.is_empty())?;
        if host.replace(name).is_some() {
            return None;
        }
    }
    Some(host.and_then(|name| host_name(std::str::from_utf8(name.0).ok()?).ok()))
}

/// RFC 7301, section 3.1. None: malformed.
fn protocols(mut extension: Reader<'_>) -> Option<Vec<Vec<u8>>> {
    let mut list = extension.vector16().filter(|list| extension.0.is_empty() && !list.0.is_empty())?;
    let mut protocols = Vec::new();
    while !list.0.is_empty() {
        protocols.push(list.vector8().filter(|name| !name.0.is_empty())?.0.to_vec());
    }
    Some(protocols)
}

/// The presentation language of RFC 8446, section 3; none: it ends too early.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2)?.try_into().ok().map(u16::from_be_bytes)
    }

    fn vector8(&mut self) -> Option<Self> {
        let &[length] = self.take(1)? else { return None };
        self.take(length.into()).map(Self)
    }

    fn vector16(&mut self) -> Option<Self> {
        let length = self.u16()?;
        self.take(length.into()).map(Self)
    }
}

#[cfg(test)]
mod tests;

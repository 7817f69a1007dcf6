//! Whom what is not of the mesh is asked of: the nameservers of `/etc/resolv.conf`, or those that were set.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// How often the file is looked at, at most.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// More nameservers than this are not used: resolv.conf(5), MAXNS.
const MAX_SERVERS: usize = 3;
const PORT: u16 = 53;

/// The nameservers to forward to. They are taken to be equal: the one that answered last is asked first.
#[derive(Debug)]
pub struct Upstream {
    source: Source,
    last_good: Mutex<Option<SocketAddr>>,
}

#[derive(Debug)]
enum Source {
    Fixed(Vec<SocketAddr>),
    File { path: PathBuf, read: Mutex<Option<Read>> },
}

/// What the file said when it was read last.
#[derive(Debug)]
struct Read {
    looked: Instant,
    version: Option<Version>,
    servers: Vec<SocketAddr>,
}

/// Changes whenever the file does: also when another takes its place.
type Version = (u64, i64, i64, u64);

impl Upstream {
    /// These, whatever the system says.
    pub fn fixed(servers: Vec<SocketAddr>) -> Self {
        Self { source: Source::Fixed(servers), last_good: Mutex::default() }
    }

    /// Those of a file like `/etc/resolv.conf`, read again when it has changed.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self { source: Source::File { path: path.into(), read: Mutex::default() }, last_good: Mutex::default() }
    }

    /// Whom to ask, in this order; never ourselves, who listen on `own`.
    pub(super) fn servers(&self, own: &[SocketAddr], now: Instant) -> Vec<SocketAddr> {
        let mut servers = match &self.source {
            Source::Fixed(servers) => servers.clone(),
            Source::File { path, read } => current(path, &mut read.lock(), now),
        };
        servers.retain(|server| !own.iter().any(|own| is_ourselves(*server, *own)));
        if let Some(last_good) = *self.last_good.lock()
            && let Some(position) = servers.iter().position(|server| *server == last_good)
        {
            servers.rotate_left(position);
        }
        servers
    }

    /// `server` answered.
    pub(super) fn answered(&self, server: SocketAddr) {
        *self.last_good.lock() = Some(server);
    }
}

fn current(path: &Path, read: &mut Option<Read>, now: Instant) -> Vec<SocketAddr> {
    if let Some(read) = read.as_ref().filter(|read| now.duration_since(read.looked) < LOOK_EVERY) {
        return read.servers.clone();
    }
    let version = fs::metadata(path).ok().map(|file| (file.ino(), file.mtime(), file.mtime_nsec(), file.len()));
    match read {
        Some(read) if read.version == version => read.looked = now,
        _ => {
            let text = fs::read_to_string(path).unwrap_or_else(|error| {
                tracing::warn!(path = %path.display(), %error, "cannot read the nameservers; taking 127.0.0.1");
                String::new()
            });
            let servers = nameservers(&text);
            tracing::info!(path = %path.display(), ?servers, "nameservers for names outside the mesh");
            *read = Some(Read { looked: now, version, servers });
        }
    }
    read.as_ref().map(|read| read.servers.clone()).unwrap_or_default()
}

/// The nameservers of a resolv.conf(5); without any it means the local one.
fn nameservers(text: &str) -> Vec<SocketAddr> {
    let servers: Vec<SocketAddr> = text
        .lines()
        .filter_map(|line| {
            let mut words = line.split_ascii_whitespace();
            let address = words.next().filter(|keyword| *keyword == "nameserver").and_then(|_| words.next())?;
            address.parse().map(|ip: IpAddr| SocketAddr::new(ip, PORT)).ok()
        })
        .take(MAX_SERVERS)
        .collect();
    if servers.is_empty() { vec![(Ipv4Addr::LOCALHOST, PORT).into()] } else { servers }
}

/// Would a query to `server` come back to us, who listen on `own`?
fn is_ourselves(server: SocketAddr, own: SocketAddr) -> bool {
    let (there, here) = (server.ip().to_canonical(), own.ip().to_canonical());
    server.port() == own.port() && (there == here || here.is_unspecified() && there.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(list: &[&str]) -> Vec<SocketAddr> {
        list.iter().map(|address| address.parse().unwrap()).collect()
    }

    #[test]
    fn nameservers_are_read_as_the_system_reads_them() {
        for (text, expected) in [
            ("nameserver 10.96.0.10\nsearch shop.svc.cluster.local\noptions ndots:5\n", &["10.96.0.10:53"][..]),
            ("  nameserver\t2001:db8::1 # ours\n;nameserver 192.0.2.1\n", &["[2001:db8::1]:53"]),
            ("nameserver 1.1.1.1\nnameserver nonsense\nnameserver 1.1.1.2", &["1.1.1.1:53", "1.1.1.2:53"]),
            (
                "nameserver 1.1.1.1\nnameserver 1.1.1.2\nnameserver 1.1.1.3\nnameserver 1.1.1.4\n",
                &["1.1.1.1:53", "1.1.1.2:53", "1.1.1.3:53"],
            ),
            ("", &["127.0.0.1:53"]),
            ("nameservers 1.1.1.1", &["127.0.0.1:53"]),
        ] {
            assert_eq!(nameservers(text), addresses(expected), "{text:?}");
        }
    }

    #[test]
    fn we_never_ask_ourselves() {
        let servers = addresses(&["127.0.0.1:53", "[::1]:53", "10.0.0.10:53", "127.0.0.1:5353"]);
        for (own, expected) in [
            (&["127.0.0.1:15053"][..], &["127.0.0.1:53", "[::1]:53", "10.0.0.10:53", "127.0.0.1:5353"][..]),
            (&["127.0.0.1:53"], &["[::1]:53", "10.0.0.10:53", "127.0.0.1:5353"]),
            (&["127.0.0.1:53", "[::1]:53"], &["10.0.0.10:53", "127.0.0.1:5353"]),
            (&["[::ffff:127.0.0.1]:53"], &["[::1]:53", "10.0.0.10:53", "127.0.0.1:5353"]),
            (&["0.0.0.0:53"], &["10.0.0.10:53", "127.0.0.1:5353"]),
        ] {
            let upstream = Upstream::fixed(servers.clone());
            assert_eq!(upstream.servers(&addresses(own), Instant::now()), addresses(expected), "{own:?}");
        }
    }

    #[test]
    fn the_server_that_answered_last_is_asked_first() {
        let upstream = Upstream::fixed(addresses(&["192.0.2.1:53", "192.0.2.2:53", "192.0.2.3:53"]));
        upstream.answered("192.0.2.2:53".parse().unwrap());
        let expected = addresses(&["192.0.2.2:53", "192.0.2.3:53", "192.0.2.1:53"]);
        assert_eq!(upstream.servers(&[], Instant::now()), expected);
    }

    #[test]
    fn a_changed_file_is_read_again_within_a_second() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("resolv.conf");
        fs::write(&path, "nameserver 192.0.2.1\n").unwrap();
        let (upstream, start) = (Upstream::file(&path), Instant::now());
        assert_eq!(upstream.servers(&[], start), addresses(&["192.0.2.1:53"]));
        // As most write it: another file takes its place.
        fs::write(folder.path().join("new"), "nameserver 192.0.2.2\n").unwrap();
        fs::rename(folder.path().join("new"), &path).unwrap();
        assert_eq!(upstream.servers(&[], start + LOOK_EVERY / 2), addresses(&["192.0.2.1:53"]));
        assert_eq!(upstream.servers(&[], start + LOOK_EVERY), addresses(&["192.0.2.2:53"]));
        fs::remove_file(&path).unwrap();
        assert_eq!(upstream.servers(&[], start + 2 * LOOK_EVERY), addresses(&["127.0.0.1:53"]));
    }
}

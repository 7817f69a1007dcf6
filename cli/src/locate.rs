//! Where the control plane of this machine is asked, and how it is asked: its admin port, which is local.
//!
//! Whoever runs a mesh here says so in a small file of the user's runtime folder (`meshes/PID.json`), and `pillion run
//! --name` keeps its control plane's address in its home, so that `pillion ps` and `pillion tap` need no address.

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use clap::Args;
use http::{Request, Response, header::HOST};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{body::Incoming, client::conn::http1::handshake};
use hyper_util::rt::TokioIo;
use nix::unistd::geteuid;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::{net::TcpStream, time::timeout};

use crate::{certs::files, client};

/// The control plane's own default.
const USUAL: &str = "127.0.0.1:15014";
/// How long an answer may take; a control plane gives its sidecars 5 s.
const ANSWER: Duration = Duration::from_secs(15);
/// How long it may take to find out whether anybody is there.
const LOOK: Duration = Duration::from_secs(2);
const LONGEST_ANSWER_BYTES: usize = 64 << 20;

/// Which control plane is asked.
#[derive(Debug, Clone, Args)]
pub(crate) struct Which {
    /// Admin address of the control plane. Default: that of the mesh that `pillion demo` or `pillion run` runs on this
    /// machine, else 127.0.0.1:15014.
    #[arg(long, value_name = "IP:PORT", env = "PILLION_CONTROL_PLANE_ADMIN")]
    control_plane_admin: Option<SocketAddr>,
}

/// What a running mesh says of itself, for as long as it runs.
#[derive(Debug)]
pub(crate) struct Announcement(PathBuf);

#[derive(Serialize, Deserialize)]
struct Note {
    admin: SocketAddr,
}

impl Announcement {
    /// Says where the control plane's admin pages are. `None`: there is no folder of ours to say it in.
    pub(crate) fn make(admin: SocketAddr) -> Option<Self> {
        let folder = crate::run::default_home().join("meshes");
        files::private_folder(&folder).ok()?;
        if !is_ours(&folder) {
            return None;
        }
        let path = folder.join(format!("{}.json", std::process::id()));
        files::replace(&path, &serde_json::to_string(&Note { admin }).ok()?, 0o600).ok()?;
        Some(Self(path))
    }
}

impl Drop for Announcement {
    fn drop(&mut self) {
        // What stays names a port on which nobody answers.
        let _stays = fs::remove_file(&self.0);
    }
}

impl Which {
    /// The address to ask.
    pub(crate) async fn find(&self) -> SocketAddr {
        if let Some(given) = self.control_plane_admin {
            return given;
        }
        let home = crate::run::default_home();
        if is_ours(&home) {
            for admin in announced(&home) {
                if client::get(admin, "/healthz", LOOK).await.is_ok_and(|reply| reply.is_success()) {
                    return admin;
                }
            }
        }
        USUAL.parse().unwrap_or_else(|_never| SocketAddr::from(([127, 0, 0, 1], 15014)))
    }
}

/// The newest first.
fn announced(home: &Path) -> Vec<SocketAddr> {
    let notes = fs::read_dir(home.join("meshes")).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut notes: Vec<PathBuf> = notes.chain([home.join("state").join("addresses.json")]).collect();
    notes.sort_by_key(|path| std::cmp::Reverse(fs::metadata(path).and_then(|is| is.modified()).ok()));
    let read = |path: &PathBuf| serde_json::from_str::<Note>(&fs::read_to_string(path).ok()?).ok();
    notes.iter().filter_map(read).map(|note| note.admin).collect()
}

/// Nobody else can have written there.
fn is_ours(folder: &Path) -> bool {
    fs::symlink_metadata(folder).is_ok_and(|is| is.is_dir() && is.uid() == geteuid().as_raw() && is.mode() & 0o022 == 0)
}

/// What a page says, as JSON.
///
/// # Errors
/// When nobody answers, or with the page's own words.
pub(crate) async fn json<T: DeserializeOwned>(admin: SocketAddr, path: &str) -> anyhow::Result<T> {
    let exchange = async {
        let (_alive, response) = open(admin, path).await?;
        let body = Limited::new(response.into_body(), LONGEST_ANSWER_BYTES).collect().await;
        let body = body.map_err(|error| anyhow::anyhow!("half an answer from {admin}: {error}"))?;
        serde_json::from_slice(&body.to_bytes()).with_context(|| format!("{admin} does not answer as a control plane"))
    };
    timeout(ANSWER, exchange).await.with_context(|| format!("{admin} does not answer"))?
}

/// Asks; the answer comes for as long as the sender is kept.
///
/// # Errors
/// When nobody answers, or with the page's own words.
pub(crate) async fn open(admin: SocketAddr, path: &str) -> anyhow::Result<(Alive, Response<Incoming>)> {
    let stream = TcpStream::connect(admin).await.with_context(|| {
        format!("no control plane at {admin}; start a mesh (pillion demo), or say where it is: --control-plane-admin")
    })?;
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = Request::get(path).header(HOST, admin.to_string()).body(Empty::<Bytes>::new())?;
    let response = timeout(ANSWER, sender.send_request(request)).await;
    let response = response.with_context(|| format!("no answer from {admin} within {ANSWER:?}"))?;
    let response = response.with_context(|| format!("no answer from {admin}"))?;
    if response.status().is_success() {
        return Ok((Alive { _sender: sender }, response));
    }
    let status = response.status();
    let body = Limited::new(response.into_body(), LONGEST_ANSWER_BYTES).collect().await;
    let body = body.map(|body| String::from_utf8_lossy(&body.to_bytes()).into_owned()).unwrap_or_default();
    let said = serde_json::from_str::<serde_json::Value>(&body).ok();
    let said = said.as_ref().and_then(|said| said["error"].as_str()).unwrap_or_else(|| body.trim());
    if status == http::StatusCode::NOT_FOUND && said.starts_with("pages:") {
        bail!("the control plane at {admin} is of a version that knows nothing of this");
    }
    bail!(Said(said.to_owned()))
}

/// A refusal in the control plane's own words: to ask again would be of no use.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Said(String);

/// Keeps a connection.
#[derive(Debug)]
pub(crate) struct Alive {
    _sender: hyper::client::conn::http1::SendRequest<Empty<Bytes>>,
}

/// A text as a part of a query.
pub(crate) fn encode(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/:,*".contains(&byte);
    text.bytes()
        .map(|byte| if is_plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_encoded() {
        assert_eq!(encode("a b&c=é/x"), "a%20b%26c%3D%C3%A9/x");
    }
}

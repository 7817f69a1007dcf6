//! The namespaces that the program gets: a network of its own, and where we are not root a user namespace over which we
//! may make one.

use std::{
    fs::{self, File},
    io::Write as _,
    net::Ipv4Addr,
    os::fd::OwnedFd,
    path::PathBuf,
    process::{Command, Stdio},
    sync::{Arc, mpsc},
    thread,
};

use anyhow::{Context as _, anyhow, bail, ensure};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    unistd::{getegid, geteuid},
};
use rustix::thread::capabilities;
use tokio::sync::oneshot;

use crate::child::{Capabilities, Powers};

const NEEDS: &str = "\
pillion run --name gives the program a network namespace of its own. That needs one of:
  - user namespaces that everybody may make. Where they are off, root turns them on:
      sysctl -w user.max_user_namespaces=15000
      sysctl -w kernel.unprivileged_userns_clone=1                 (Debian's kernels)
      sysctl -w kernel.apparmor_restrict_unprivileged_userns=0     (Ubuntu's, since 23.10)
    In a container its seccomp profile or runtime must allow unshare(CLONE_NEWUSER)
  - root, with CAP_SYS_ADMIN and CAP_NET_ADMIN";

/// Makes this process one that may make network namespaces. In a user namespace of its own it keeps its user and group,
/// and so does everything that it starts. To be called before there is a second thread.
pub(super) fn become_capable() -> anyhow::Result<()> {
    let needed = Capabilities::SYS_ADMIN | Capabilities::NET_ADMIN;
    if capabilities(None).context("cannot read our own capabilities")?.effective.contains(needed) {
        return Ok(());
    }
    let (user, group) = (geteuid(), getegid());
    unshare(CloneFlags::CLONE_NEWUSER).with_context(|| format!("cannot make a user namespace\n{NEEDS}\n"))?;
    let map = |file: &str, text: String| {
        let written = fs::write(format!("/proc/self/{file}"), text);
        written.with_context(|| format!("cannot map our user into a namespace (/proc/self/{file})\n{NEEDS}\n"))
    };
    map("setgroups", "deny".to_owned())?;
    map("uid_map", format!("{user} {user} 1"))?;
    map("gid_map", format!("{group} {group} 1"))
}

type Job = Box<dyn FnOnce() + Send>;

/// The program's network namespace: a thread that is in it, and starts there what is to be in it.
#[derive(Debug)]
pub(super) struct Network {
    /// The namespace itself, open.
    pub(super) file: Arc<OwnedFd>,
    jobs: mpsc::Sender<Job>,
}

impl Network {
    /// Makes a namespace, without any link to anywhere.
    pub(super) fn make() -> anyhow::Result<Self> {
        let (jobs, received) = mpsc::channel::<Job>();
        let (made, outcome) = mpsc::sync_channel(1);
        thread::Builder::new()
            .name("application".to_owned())
            .spawn(move || {
                let opened = unshare(CloneFlags::CLONE_NEWNET)
                    .with_context(|| format!("cannot make a network namespace\n{NEEDS}\n"))
                    .and_then(|()| hide_resolvers())
                    .and_then(|()| File::open("/proc/thread-self/ns/net").context("cannot open our network namespace"));
                let inside = opened.is_ok();
                if made.send(opened).is_err() || !inside {
                    return;
                }
                // Until the end of the process: the kernel ties the lives of what is started here to this thread.
                received.into_iter().for_each(|job| job());
            })
            .context("cannot start a thread")?;
        let file = outcome.recv().context("the thread ended")??;
        Ok(Self { file: Arc::new(file.into()), jobs })
    }

    /// Does something in the namespace. A process that it starts is in the namespace.
    pub(super) async fn inside<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
    ) -> anyhow::Result<T> {
        let (done, outcome) = oneshot::channel();
        let job = move || {
            // Nobody waits any more when the run was interrupted.
            let _unheard = done.send(job());
        };
        self.jobs.send(Box::new(job)).map_err(|_closed| anyhow!("the namespace's thread is gone"))?;
        outcome.await.context("the namespace's thread is gone")?
    }

    /// Gives the namespace its loopback, the workload's address on it, and routes by which a connection to anywhere gets
    /// as far as the rules that redirect it.
    pub(super) async fn connect(&self, address: Ipv4Addr) -> anyhow::Result<()> {
        self.inside(move || {
            // The global scope makes it the source address of whatever leaves.
            let settings = format!(
                "link set lo up\naddress add {address}/32 dev lo scope global\nroute add default dev lo src {address}\n"
            );
            administer("ip", &["-batch", "-"], &settings)?;
            // A kernel without IPv6 has nothing to route.
            if fs::exists("/proc/net/if_inet6").unwrap_or(false) {
                administer("ip", &["-6", "route", "add", "default", "dev", "lo"], "")?;
            }
            Ok(())
        })
        .await
    }
}

/// Other processes that resolve names for the C library, in the machine's network, where the mesh's names are unknown.
/// Without them it asks a DNS server, as it would on most machines.
const RESOLVERS: [&str; 3] = ["/run/nscd/socket", "/var/run/nscd/socket", "/run/systemd/resolve/io.systemd.Resolve"];

/// Covers the sockets of [`RESOLVERS`] for what this thread starts. Where there are none, files are as they are.
fn hide_resolvers() -> anyhow::Result<()> {
    let there: Vec<PathBuf> = RESOLVERS.iter().filter_map(|path| fs::canonicalize(path).ok()).collect();
    if there.is_empty() {
        return Ok(());
    }
    unshare(CloneFlags::CLONE_NEWNS).context("cannot make a mount namespace")?;
    let (none, slave) = (None::<&str>, MsFlags::MS_SLAVE | MsFlags::MS_REC);
    // What is mounted outside is seen inside, and not the other way round.
    mount(none, "/", none, slave, none).context("cannot keep mounts to ourselves")?;
    there.iter().try_for_each(|path| {
        let mounted = mount(Some("/dev/null"), path, none, MsFlags::MS_BIND, none);
        mounted.with_context(|| format!("cannot hide {} from the program", path.display()))
    })
}

/// Runs a tool that needs power over the network, and waits for it.
pub(super) fn administer(program: &str, arguments: &[&str], input: &str) -> anyhow::Result<()> {
    let _lent =
        Powers::of(Capabilities::NET_ADMIN | Capabilities::NET_RAW).lend().context("cannot lend capabilities")?;
    let mut command = Command::new(program);
    // Users seldom have the folders of ip and nft in their PATH.
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    command.env("PATH", std::env::join_paths(folders).context("PATH is not a list of folders")?);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let shown = || format!("{program} {}", arguments.join(" "));
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            bail!("`{program}` is not installed; on Debian: apt-get install iproute2 nftables")
        }
        Err(error) => return Err(error).with_context(|| format!("cannot start {}", shown())),
    };
    if let Some(mut stdin) = child.stdin.take() {
        // What it thinks of an input that it did not read, it says itself.
        let _said_by_itself = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().with_context(|| format!("lost sight of {}", shown()))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{} failed ({}): {}", shown(), output.status, said.trim());
    Ok(())
}

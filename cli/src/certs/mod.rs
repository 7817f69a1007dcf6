//! `pillion certs`: a root, an intermediate and workload certificates for development, and join tokens.
//!
//! The files have the names that the control plane's state folder uses, so that a control plane started on a folder
//! with a root and an intermediate made here signs with them.

pub(crate) mod files;
mod issue;

use std::{io::Write as _, path::PathBuf, time::Duration};

use clap::{Args, Subcommand};
use pillion_control_plane::ca::join_token;
use pillion_wire::spiffe::{SpiffeId, TrustDomain};

use crate::duration::parse_duration;
use files::Folder;

/// What to make.
#[derive(Debug, Subcommand)]
pub(crate) enum Certs {
    /// Make a self-signed root: root.pem and root.key.
    Root(Authority),
    /// Make an intermediate signed by the folder's root: intermediate.pem and intermediate.key.
    Intermediate(Authority),
    /// Make a workload certificate with a SPIFFE id: NAME.pem (with its chain), NAME.key and root.pem.
    Workload(Workload),
    /// Print a join token: what a sidecar proves its service account with before it has a certificate.
    Token(Token),
}

/// Settings of a root or an intermediate.
#[derive(Debug, Args)]
pub(crate) struct Authority {
    /// Folder for the files; made if there is none (mode 0700, keys 0600).
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// The trust domain that its name mentions.
    #[arg(long, default_value = "cluster.local")]
    trust_domain: TrustDomain,
    /// How long it is valid. Default: 3650d for a root, 365d for an intermediate.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    lifetime: Option<Duration>,
    /// Replace files that exist.
    #[arg(long)]
    force: bool,
}

/// Settings of a workload certificate.
#[derive(Debug, Args)]
pub(crate) struct Workload {
    /// Folder with intermediate.pem, intermediate.key and root.pem: that of `certs root`, or a control plane's state.
    #[arg(long, value_name = "DIR")]
    ca: PathBuf,
    /// Folder for the files. Default: the CA's folder.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Name of the files. Default: SERVICE-ACCOUNT.NAMESPACE.
    #[arg(long)]
    name: Option<String>,
    /// The trust domain of the SPIFFE id.
    #[arg(long, default_value = "cluster.local")]
    trust_domain: TrustDomain,
    /// The namespace of the SPIFFE id.
    #[arg(long, default_value = "default")]
    namespace: String,
    /// The service account of the SPIFFE id.
    #[arg(long, default_value = "default")]
    service_account: String,
    /// Also valid for this DNS name or IP address, for clients that know no SPIFFE; may be given more than once.
    #[arg(long = "san", value_name = "NAME")]
    names: Vec<String>,
    /// How long it is valid.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "24h")]
    lifetime: Duration,
    /// Replace files that exist.
    #[arg(long)]
    force: bool,
}

/// Settings of a join token.
#[derive(Debug, Args)]
pub(crate) struct Token {
    /// The control plane's state folder, whose join key signs the token.
    #[arg(long, value_name = "DIR")]
    state: PathBuf,
    /// The namespace of the service account.
    #[arg(long, default_value = "default")]
    namespace: String,
    /// The service account that the token is for.
    #[arg(long, default_value = "default")]
    service_account: String,
    /// How long it may be used.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "1h")]
    ttl: Duration,
}

const DAY: Duration = Duration::from_secs(24 * 3600);

/// Makes what was asked for and says where it is.
pub(crate) fn run(certs: &Certs) -> anyhow::Result<()> {
    match certs {
        Certs::Root(authority) => make_root(authority),
        Certs::Intermediate(authority) => make_intermediate(authority),
        Certs::Workload(workload) => make_workload(workload),
        Certs::Token(token) => print_token(token),
    }
}

fn make_root(settings: &Authority) -> anyhow::Result<()> {
    let folder = Folder::open(&settings.out, settings.force)?;
    let root = issue::root(settings.trust_domain.as_str(), settings.lifetime.unwrap_or(3650 * DAY))?;
    folder.save("root", &root, "")?;
    say(&folder, "root")
}

fn make_intermediate(settings: &Authority) -> anyhow::Result<()> {
    let folder = Folder::open(&settings.out, settings.force)?;
    let (root, _) = folder.authority("root")?;
    let lifetime = settings.lifetime.unwrap_or(365 * DAY);
    let intermediate = issue::intermediate(&root, settings.trust_domain.as_str(), lifetime)?;
    folder.save("intermediate", &intermediate, "")?;
    say(&folder, "intermediate")
}

fn make_workload(settings: &Workload) -> anyhow::Result<()> {
    let id = SpiffeId::new(&settings.trust_domain, &settings.namespace, &settings.service_account)?;
    let ca = Folder::existing(&settings.ca);
    let (issuer, chain) = ca.authority("intermediate")?;
    let names = settings.names.iter().map(|name| issue::other_name(name)).collect::<Result<Vec<_>, _>>()?;
    let issued = issue::workload(&issuer, &id, &names, settings.lifetime)?;
    let out = Folder::open(settings.out.as_ref().unwrap_or(&settings.ca), settings.force)?;
    let default_name = || format!("{}.{}", settings.service_account, settings.namespace);
    let name = settings.name.clone().unwrap_or_else(default_name);
    out.save(&name, &issued, &chain)?;
    if settings.out.as_ref().is_some_and(|folder| *folder != settings.ca) {
        out.save_public("root", &ca.certificate("root")?)?;
    }
    writeln!(std::io::stdout(), "{id}")?;
    say(&out, &name)
}

fn print_token(settings: &Token) -> anyhow::Result<()> {
    let token = join_token::mint(&settings.state, &settings.namespace, &settings.service_account, settings.ttl)?;
    writeln!(std::io::stdout(), "{token}")?;
    Ok(())
}

fn say(folder: &Folder, name: &str) -> anyhow::Result<()> {
    let (certificate, key) = (folder.file(name, "pem"), folder.file(name, "key"));
    writeln!(std::io::stdout(), "{}\n{}", certificate.display(), key.display())?;
    Ok(())
}

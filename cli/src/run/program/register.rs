//! Who runs in this home: a record for each program, and the Workload and Service documents made of the records.
//!
//! Everything here happens under the home's lock. A program that is gone without a word is known by its record, which
//! nobody holds a lock on any more; whoever is alive removes what it left.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    fs::{self, File},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use rand::Rng as _;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    home::{Home, lock_file, remove},
    ports::Port,
};
use crate::certs::files::replace;

/// Each workload's mesh port, on an address of its own.
pub(super) const MESH_PORT: u16 = 15008;
/// How many addresses are tried.
const TRIES: usize = 256;

/// What others must know of a running program.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Record {
    /// Its Service, its label `app` and its service account.
    pub(super) name: String,
    /// The namespace of all three.
    pub(super) namespace: String,
    /// Its own address, and that of its Workload.
    pub(super) address: Ipv4Addr,
    /// Its ports.
    pub(super) ports: Vec<Port>,
}

impl Record {
    /// The name of its Workload, unique in the home: no two addresses are equal.
    pub(super) fn workload(&self) -> String {
        let [_, _, third, fourth] = self.address.octets();
        format!("{}-{third}-{fourth}", self.name)
    }

    /// The name of its files.
    pub(super) fn file_name(&self) -> String {
        format!("{}.{}", self.namespace, self.workload())
    }
}

/// A program that is entered. Its record counts until this is dropped.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) record: Record,
    _alive: File,
}

/// Enters a program: an address is found for it, and held.
///
/// # Errors
/// When a program of the same name says otherwise about a port, or no address is free.
pub(super) fn enter(home: &Home, namespace: &str, name: &str, ports: &[Port]) -> anyhow::Result<Entry> {
    let _lock = home.lock()?;
    let others = sweep_locked(home)?;
    let same = others.iter().filter(|other| other.name == name && other.namespace == namespace);
    for (ours, theirs) in
        same.flat_map(|other| &other.ports).flat_map(|theirs| ports.iter().map(move |ours| (ours, theirs)))
    {
        if ours.service == theirs.service && ours.protocol != theirs.protocol {
            let said = |port: &Port| port.protocol.clone().unwrap_or_else(|| "none".to_owned());
            bail!(
                "{name} is already running, and its port {} has the protocol {}; here it has {}: make them equal",
                ours.service,
                said(theirs),
                said(ours)
            );
        }
    }
    let taken: BTreeSet<Ipv4Addr> = others.iter().map(|other| other.address).collect();
    let address = unused_address(&taken, MESH_PORT)?;
    let record = Record { name: name.to_owned(), namespace: namespace.to_owned(), address, ports: ports.to_vec() };
    let alive = lock_file(&home.runs().join(format!("{}.lock", record.file_name())))?;
    alive.try_lock().with_context(|| format!("somebody else runs as {}", record.workload()))?;
    replace(&record_file(home, &record), &serde_json::to_string(&record)?, 0o600)?;
    Ok(Entry { record, _alive: alive })
}

/// Makes the program known to the mesh.
pub(super) fn publish(home: &Home, record: &Record) -> anyhow::Result<()> {
    let _lock = home.lock()?;
    let file = home.own_documents().join(format!("{}.json", record.file_name()));
    replace(&file, &format!("{:#}\n", workload(record)), 0o600)?;
    write_service(home, &record.namespace, &record.name, &sweep_locked(home)?)
}

/// Removes what a program has here.
pub(super) fn leave(home: &Home, record: &Record) -> anyhow::Result<()> {
    let _lock = home.lock()?;
    forget(home, record)?;
    write_service(home, &record.namespace, &record.name, &sweep_locked(home)?)
}

/// Removes what programs left that are gone without a word.
pub(super) fn sweep(home: &Home) -> anyhow::Result<()> {
    let _lock = home.lock()?;
    sweep_locked(home).map(drop)
}

/// An address of 127.77.0.0/16 on which nobody listens.
pub(super) fn free_address(port: u16) -> anyhow::Result<Ipv4Addr> {
    unused_address(&BTreeSet::new(), port)
}

fn unused_address(taken: &BTreeSet<Ipv4Addr>, port: u16) -> anyhow::Result<Ipv4Addr> {
    for _ in 0..TRIES {
        let (third, fourth) = (rand::rng().random(), rand::rng().random_range(1..255));
        let address = Ipv4Addr::new(127, 77, third, fourth);
        let free = || TcpListener::bind(SocketAddr::new(IpAddr::V4(address), port)).is_ok();
        if !taken.contains(&address) && free() {
            return Ok(address);
        }
    }
    bail!("found no free address in 127.77.0.0/16 with port {port}")
}

fn record_file(home: &Home, record: &Record) -> PathBuf {
    home.runs().join(format!("{}.json", record.file_name()))
}

/// The records of those that are alive. What the others left is removed.
fn sweep_locked(home: &Home) -> anyhow::Result<Vec<Record>> {
    let (mut alive, mut gone) = (Vec::new(), Vec::new());
    let runs = home.runs();
    let entries = fs::read_dir(&runs).with_context(|| format!("cannot read {}", runs.display()))?;
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        if path.extension() != Some(OsStr::new("json")) {
            continue;
        }
        let Some(record) = read_record(&path) else {
            remove(&path)?;
            continue;
        };
        let lock = lock_file(&path.with_extension("lock"))?;
        // Its own process holds the lock through another description of the file: it is refused to us too, as it should.
        if lock.try_lock().is_ok() { gone.push(record) } else { alive.push(record) }
    }
    for record in &gone {
        forget(home, record)?;
    }
    let names: BTreeSet<(&String, &String)> = gone.iter().map(|record| (&record.namespace, &record.name)).collect();
    for (namespace, name) in names {
        write_service(home, namespace, name, &alive)?;
    }
    Ok(alive)
}

fn read_record(path: &Path) -> Option<Record> {
    serde_json::from_str(&fs::read_to_string(path).ok()?).ok()
}

/// Removes all of a program but its part in the Service.
fn forget(home: &Home, record: &Record) -> anyhow::Result<()> {
    let name = record.file_name();
    remove(&home.own_documents().join(format!("{name}.json")))?;
    for kind in ["json", "token"] {
        remove(&home.state().join("sidecars").join(format!("{name}.{kind}")))?;
    }
    remove(&record_file(home, record))?;
    remove(&home.runs().join(format!("{name}.lock")))
}

/// The Service of all programs of one name: the ports of all, or no Service when there is none.
fn write_service(home: &Home, namespace: &str, name: &str, alive: &[Record]) -> anyhow::Result<()> {
    let file = home.own_documents().join(format!("{namespace}.{name}.service.json"));
    let programs = alive.iter().filter(|record| record.name == name && record.namespace == namespace);
    let ports: BTreeMap<_, _> = programs
        .flat_map(|record| record.ports.iter().map(move |port| (port.service, (port, target(record, port)))))
        .collect();
    if ports.is_empty() {
        return remove(&file);
    }
    let ports: Vec<Value> = ports
        .values()
        .map(|(port, target)| {
            let mut value = json!({ "name": format!("p{}", port.service), "port": port.service, "targetPort": target });
            if let (Some(protocol), Some(fields)) = (&port.protocol, value.as_object_mut()) {
                fields.insert("appProtocol".to_owned(), json!(protocol));
            }
            value
        })
        .collect();
    let service = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": { "name": name, "namespace": namespace },
        "spec": { "selector": { "app": name }, "ports": ports },
    });
    Ok(replace(&file, &format!("{service:#}\n"), 0o600)?)
}

/// What a Service calls the program's port. A name, so that programs of one Service may listen on different ports: that
/// of the first Service port that leads there.
fn target(record: &Record, port: &Port) -> String {
    let first = record.ports.iter().find(|other| other.program == port.program).unwrap_or(port);
    format!("p{}", first.service)
}

fn workload(record: &Record) -> Value {
    let ports: BTreeMap<_, _> = record.ports.iter().map(|port| (port.program, target(record, port))).collect();
    let ports = ports.iter().map(|(port, name)| {
        let application = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port.get());
        json!({ "name": name, "port": port, "application": application })
    });
    json!({
        "apiVersion": "pillion.dev/v1alpha1",
        "kind": "Workload",
        "metadata": {
            "name": record.workload(),
            "namespace": record.namespace,
            "labels": { "app": record.name },
        },
        "spec": {
            "address": record.address,
            "serviceAccount": record.name,
            "ports": ports.collect::<Vec<_>>(),
            "mesh": { "port": MESH_PORT },
        },
    })
}

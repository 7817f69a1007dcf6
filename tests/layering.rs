//! Holds the architecture: inside the proxy imports go down only, and crates know only those below them.

#![expect(clippy::expect_used, reason = "a tree that cannot be read fails the test")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Top-level modules of the proxy by layer; a module may import from its own layer and those below.
const LAYERS: [(u8, &[&str]); 5] = [
    (5, &["main", "app", "application", "listeners", "readiness", "worker", "admin", "observe", "init"]),
    (4, &["proxy"]),
    (3, &["discovery", "snapshot", "upstream", "dns"]),
    (2, &["identity", "tls", "net", "http", "route", "filter", "balance", "policy", "resilience"]),
    (1, &["config", "telemetry", "error", "drain", "slot", "bootstrap", "backoff", "store"]),
];

/// Crates of ours, each with those that it may depend on.
const CRATES: [(&str, &[&str]); 4] = [
    ("wire/Cargo.toml", &[]),
    ("Cargo.toml", &["pillion-wire"]),
    ("control-plane/Cargo.toml", &["pillion-wire"]),
    ("cli/Cargo.toml", &["pillion-wire", "pillion-proxy", "pillion-control-plane"]),
];

#[test]
fn every_module_of_the_proxy_has_a_layer() {
    let layers = layers();
    let unknown: Vec<String> =
        sources().iter().map(|file| module(file)).filter(|name| !layers.contains_key(name.as_str())).collect();
    assert!(unknown.iter().all(|name| name == "lib"), "give these a layer here and in src/lib.rs: {unknown:?}");
}

#[test]
fn imports_of_the_proxy_go_down_only() {
    let layers = layers();
    let mut upward = Vec::new();
    for file in sources() {
        let from = module(&file);
        let Some(&layer) = layers.get(from.as_str()) else { continue };
        for (number, line) in production_code(&file).lines().enumerate() {
            for name in imported(line) {
                if layers.get(name).is_some_and(|&to| to > layer) {
                    upward.push(format!("{}:{}: {from} (layer {layer}) imports {name}", file.display(), number + 1));
                }
            }
        }
    }
    assert!(upward.is_empty(), "imports that go up:\n{}", upward.join("\n"));
}

#[test]
fn discovery_and_the_proxy_meet_only_through_the_snapshot() {
    for file in sources() {
        let (from, code) = (module(&file), production_code(&file));
        let forbidden = match from.as_str() {
            "discovery" => "crate::proxy",
            "proxy" => "crate::discovery",
            _ => continue,
        };
        assert!(!code.contains(forbidden), "{} uses {forbidden}", file.display());
    }
}

#[test]
fn crates_depend_only_on_those_below_them() {
    for (manifest, allowed) in CRATES {
        let text = fs::read_to_string(root().join(manifest)).expect("every crate has a manifest");
        let dependencies = text.split("[dependencies]").nth(1).unwrap_or_default();
        let dependencies = dependencies.split("\n[").next().unwrap_or_default();
        for line in dependencies.lines().filter(|line| line.starts_with("pillion-")) {
            let name = line.split(['.', ' ', '=']).next().unwrap_or_default();
            assert!(allowed.contains(&name), "{manifest} may not depend on {name}");
        }
    }
}

fn layers() -> BTreeMap<&'static str, u8> {
    LAYERS.iter().flat_map(|(layer, names)| names.iter().map(|name| (*name, *layer))).collect()
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn sources() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().join("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a readable folder").flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|kind| kind == "rs") {
                found.push(path);
            }
        }
    }
    assert!(found.len() > 40, "only {} files found: is this looking in the right place?", found.len());
    found
}

/// The top-level module that a file belongs to.
fn module(file: &Path) -> String {
    let inside = file.strip_prefix(root().join("src")).expect("a file below src");
    let first = inside.components().next().expect("a file has a name");
    Path::new(first.as_os_str()).file_stem().expect("a name").to_string_lossy().into_owned()
}

/// The file without its tests and comments.
fn production_code(file: &Path) -> String {
    let text = fs::read_to_string(file).expect("a readable file");
    let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default().to_owned();
    code.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// Names right after `crate::` in a line, those of a brace list included.
fn imported(line: &str) -> Vec<&str> {
    line.match_indices("crate::")
        .flat_map(|(at, prefix)| {
            let rest = line.get(at + prefix.len()..).unwrap_or_default();
            let list = rest.strip_prefix('{').unwrap_or(rest);
            let end = if rest.starts_with('{') { list.len() } else { list.find(',').unwrap_or(list.len()) };
            list.get(..end).unwrap_or_default().split(',').map(|name| {
                let name = name.trim();
                name.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default()
            })
        })
        .collect()
}

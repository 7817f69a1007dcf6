//! Finds the files of a directory and reads those that changed.
//!
//! Editors and scripts do not write files in one step: for a moment a file is
//! empty, half written, or not there at all. What was just touched is therefore
//! looked at again a moment later before it counts, and a file that became empty
//! or vanished gets a little longer. Waiting is bounded, so that edits without
//! pause still come through.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use super::state::Content;

/// A file that was written less than this ago may still be written to. More than
/// the 4 ms by which file systems on Linux count time.
const FRESH: Duration = Duration::from_millis(10);
/// When to look again.
const AGAIN: Duration = Duration::from_millis(10);
/// How often a file that is written to is put off.
const MAX_FRESH: u8 = 3;
/// How often a file that became empty is put off.
const MAX_EMPTY: u8 = 20;
/// How often a file that vanished is put off.
const MAX_GONE: u8 = 10;
/// The largest file that is read.
const MAX_FILE_BYTES: u64 = 64 << 20;
/// How deep folders may be nested; ends loops of symbolic links too.
const MAX_DEPTH: usize = 16;

/// The files of one directory, as last read.
#[derive(Debug)]
pub struct Files {
    root: PathBuf,
    files: BTreeMap<PathBuf, File>,
}

#[derive(Debug)]
struct File {
    stamp: Stamp,
    content: Content,
    /// Read when nothing had been written for a while.
    settled: bool,
    /// How often it was put off since it was last read.
    deferred: u8,
}

/// What changes when a file does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    modified: Option<SystemTime>,
    changed: (i64, i64),
    length: u64,
    inode: u64,
}

/// What a scan found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Some content is another one now.
    pub changed: bool,
    /// Look again after this time, whether something happens or not.
    pub again: Option<Duration>,
}

impl Files {
    /// Nothing read yet.
    #[must_use]
    pub const fn new(root: PathBuf) -> Self {
        Self { root, files: BTreeMap::new() }
    }

    /// The files by their paths relative to the directory, in order.
    pub fn contents(&self) -> impl Iterator<Item = (&Path, &Content)> {
        self.files.iter().map(|(path, file)| (path.as_path(), &file.content))
    }

    /// Looks at every file and reads those that changed.
    ///
    /// # Errors
    ///
    /// When the directory itself cannot be read; nothing changes then.
    pub fn scan(&mut self, now: SystemTime) -> io::Result<Outcome> {
        let mut found = BTreeMap::new();
        walk(&self.root, Path::new(""), 0, &mut found)?;
        let mut outcome = Outcome::default();
        for (path, stamp) in &found {
            self.look(path, *stamp, now, &mut outcome);
        }
        self.forget_gone(&found, &mut outcome);
        Ok(outcome)
    }

    fn look(&mut self, path: &Path, stamp: Stamp, now: SystemTime, outcome: &mut Outcome) {
        let known = self.files.get_mut(path);
        if known.as_ref().is_some_and(|file| file.stamp == stamp && file.settled) {
            return;
        }
        let full = self.root.join(path);
        let content = read(&full, stamp.length);
        let settled = !stamp.is_fresh(now) && Stamp::of(&full).is_ok_and(|after| after == stamp);
        if let Some(file) = known {
            let emptied = is_empty(&content) && !is_empty(&file.content);
            let limit = match (emptied, settled) {
                (true, _) => MAX_EMPTY,
                (false, false) => MAX_FRESH,
                (false, true) => 0,
            };
            if file.deferred < limit {
                file.deferred += 1;
                outcome.again = Some(AGAIN);
                return;
            }
        }
        if !settled {
            outcome.again = Some(AGAIN);
        }
        outcome.changed = true;
        self.files.insert(path.to_owned(), File { stamp, content, settled, deferred: 0 });
    }

    fn forget_gone(&mut self, found: &BTreeMap<PathBuf, Stamp>, outcome: &mut Outcome) {
        self.files.retain(|path, file| {
            if found.contains_key(path) {
                return true;
            }
            // Read again should it come back, even as it was.
            file.settled = false;
            file.deferred += 1;
            if file.deferred <= MAX_GONE {
                outcome.again = Some(AGAIN);
                return true;
            }
            outcome.changed = true;
            false
        });
    }
}

impl Stamp {
    fn of(path: &Path) -> io::Result<Self> {
        let metadata = fs::metadata(path)?;
        Ok(Self::from(&metadata))
    }

    fn from(metadata: &fs::Metadata) -> Self {
        Self {
            modified: metadata.modified().ok(),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            length: metadata.len(),
            inode: metadata.ino(),
        }
    }

    /// A time in the future is somebody's wrong clock and never fresh.
    fn is_fresh(&self, now: SystemTime) -> bool {
        self.modified.and_then(|modified| now.duration_since(modified).ok()).is_some_and(|age| age < FRESH)
    }
}

fn read(path: &Path, length: u64) -> Content {
    if length > MAX_FILE_BYTES {
        return Content::Unreadable(format!("larger than {MAX_FILE_BYTES} bytes"));
    }
    match fs::read(path).map(String::from_utf8) {
        Ok(Ok(text)) => Content::parse(&text),
        Ok(Err(_)) => Content::Unreadable("not UTF-8".to_owned()),
        Err(error) => Content::Unreadable(error.to_string()),
    }
}

fn is_empty(content: &Content) -> bool {
    matches!(content, Content::Documents(documents) if documents.is_empty())
}

/// Collects the YAML files below `folder`. A folder that vanishes meanwhile is empty.
fn walk(root: &Path, folder: &Path, depth: usize, found: &mut BTreeMap<PathBuf, Stamp>) -> io::Result<()> {
    for entry in fs::read_dir(root.join(folder))? {
        let name = entry?.file_name();
        let path = folder.join(&name);
        let Some(name) = name.to_str() else { continue };
        if is_ignored(name) {
            continue;
        }
        let Ok(metadata) = fs::metadata(root.join(&path)) else {
            continue;
        };
        if metadata.is_dir() {
            if depth < MAX_DEPTH {
                match walk(root, &path, depth + 1, found) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
        } else if metadata.is_file() && is_yaml(name) {
            found.insert(path, Stamp::from(&metadata));
        }
    }
    Ok(())
}

/// Hidden files, and what editors leave while they work.
fn is_ignored(name: &str) -> bool {
    name.starts_with('.') || name.starts_with('#') || name.ends_with('~')
}

fn is_yaml(name: &str) -> bool {
    let extension = name.rsplit_once('.').map(|(_, extension)| extension);
    matches!(extension, Some("yaml" | "yml" | "json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVICE: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: [{port: 80}]}\n";

    fn later() -> SystemTime {
        SystemTime::now() + Duration::from_secs(5)
    }

    fn paths(files: &Files) -> Vec<String> {
        files.contents().map(|(path, _)| path.display().to_string()).collect()
    }

    #[test]
    fn finds_nested_yaml_and_ignores_what_editors_leave() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("x/y")).unwrap();
        for name in ["a.yaml", "x/b.yml", "x/y/c.json", ".d.yaml", "#e.yaml#", "f.yaml~", "g.txt", ".h.yaml.swp"] {
            fs::write(dir.path().join(name), SERVICE).unwrap();
        }
        let mut files = Files::new(dir.path().to_owned());
        assert!(files.scan(later()).unwrap().changed);
        assert_eq!(paths(&files), ["a.yaml", "x/b.yml", "x/y/c.json"]);
        assert_eq!(files.scan(later()).unwrap(), Outcome::default());
    }

    #[test]
    fn a_file_that_is_empty_for_a_moment_keeps_its_content() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.yaml");
        fs::write(&path, SERVICE).unwrap();
        let mut files = Files::new(dir.path().to_owned());
        files.scan(later()).unwrap();
        fs::write(&path, "").unwrap();
        let outcome = files.scan(later()).unwrap();
        assert_eq!((outcome.changed, outcome.again), (false, Some(AGAIN)));
        fs::write(&path, SERVICE.replace("80", "81")).unwrap();
        assert!(files.scan(later()).unwrap().changed);
    }

    #[test]
    fn a_file_that_stays_empty_or_away_is_believed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.yaml");
        fs::write(&path, SERVICE).unwrap();
        let mut files = Files::new(dir.path().to_owned());
        files.scan(later()).unwrap();
        fs::write(&path, "").unwrap();
        let scans = (0..100).find(|_| files.scan(later()).unwrap().changed);
        assert_eq!(scans, Some(usize::from(MAX_EMPTY)));
        fs::remove_file(&path).unwrap();
        let scans = (0..100).find(|_| files.scan(later()).unwrap().changed);
        assert_eq!(scans, Some(usize::from(MAX_GONE)));
        assert!(paths(&files).is_empty());
    }

    #[test]
    fn edits_without_pause_are_not_put_off_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.yaml");
        fs::write(&path, SERVICE).unwrap();
        let mut files = Files::new(dir.path().to_owned());
        files.scan(later()).unwrap();
        let scans = (0..100).find(|round| {
            fs::write(&path, SERVICE.replace("80", &format!("{}", 1000 + round))).unwrap();
            files.scan(SystemTime::now()).unwrap().changed
        });
        assert_eq!(scans, Some(usize::from(MAX_FRESH)));
    }

    #[test]
    fn a_missing_directory_is_an_error_and_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut files = Files::new(dir.path().join("none"));
        assert!(files.scan(later()).is_err());
    }
}

//! Which paths of this machine a client may name, and what it may learn of them.
use crate::adapter::{AdapterError, AdapterFiles, AdapterLimits};
use std::path::{Component, Path, PathBuf};

/// Why there is no adapter at a path.
#[derive(Debug)]
pub(super) enum Refused {
    /// It may not be named. The same whether there is something or not.
    NotAllowed,
    /// It may be, and there is none.
    Absent,
    /// What is there is no adapter that can be read.
    Broken(AdapterError),
}

/// The adapter at `path`, when that and all that belongs to it lies below one of `prefixes`. Blocks.
///
/// # Errors
/// See [`Refused`].
pub(super) fn read(
    path: &Path,
    prefixes: &[PathBuf],
    limits: &AdapterLimits,
) -> Result<AdapterFiles, Refused> {
    let roots: Vec<_> = prefixes.iter().filter_map(|prefix| prefix.canonicalize().ok()).collect();
    let found = resolve(path, &roots)?;
    if !has_own_files(&found, &roots) {
        return Err(Refused::NotAllowed);
    }
    if !AdapterFiles::is_at(&found) {
        return Err(Refused::Absent);
    }
    AdapterFiles::read(&found, limits).map_err(Refused::Broken)
}

/// `path` without links. Of what is not there the nearest directory that is counts: else the answer would tell what
/// lies elsewhere.
fn resolve(path: &Path, roots: &[PathBuf]) -> Result<PathBuf, Refused> {
    if !path.is_absolute() || path.components().any(|part| part == Component::ParentDir) {
        return Err(Refused::NotAllowed);
    }
    let there = path.ancestors().find_map(|part| Some((part, part.canonicalize().ok()?)));
    match there {
        Some((part, found)) if is_below(&found, roots) => {
            if part == path {
                Ok(found)
            } else {
                Err(Refused::Absent)
            }
        }
        _ => Err(Refused::NotAllowed),
    }
}

/// Whether no link in the directory leads out of the roots.
fn has_own_files(directory: &Path, roots: &[PathBuf]) -> bool {
    let Ok(entries) = directory.read_dir() else { return true };
    let is_own = |entry: std::io::Result<std::fs::DirEntry>| {
        let Ok(path) = entry.map(|entry| entry.path()) else { return false };
        !path.is_symlink() || path.canonicalize().is_ok_and(|found| is_below(&found, roots))
    };
    entries.into_iter().all(is_own)
}

fn is_below(path: &Path, roots: &[PathBuf]) -> bool {
    roots.iter().any(|root| path.starts_with(root))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use tempfile::TempDir;

    /// A root with an adapter, and a secret beside it.
    struct Disk {
        all: TempDir,
        root: PathBuf,
    }

    impl Disk {
        fn new() -> Self {
            let all = TempDir::new().expect("a directory");
            let (root, out) = (all.path().join("root"), all.path().join("out"));
            for place in [root.join("good"), root.join("empty"), out.join("good")] {
                fs::create_dir_all(place).expect("made");
            }
            for place in [&root, &out] {
                fs::write(place.join("good/adapter_config.json"), "{}").expect("written");
                fs::write(place.join("good/adapter_model.safetensors"), "w").expect("written");
            }
            Self { all, root }
        }

        fn read(&self, path: &str) -> Result<AdapterFiles, Refused> {
            let path = self.all.path().join(path);
            read(&path, std::slice::from_ref(&self.root), &AdapterLimits::default())
        }

        fn is_refused(&self, path: &str) -> bool {
            matches!(self.read(path), Err(Refused::NotAllowed))
        }
    }

    #[test]
    fn what_lies_below_a_prefix_is_read() {
        let disk = Disk::new();
        assert!(disk.read("root/good").is_ok());
        assert!(matches!(disk.read("root/empty"), Err(Refused::Absent)));
        assert!(matches!(disk.read("root/none/at/all"), Err(Refused::Absent)));
        fs::write(disk.root.join("bad.gguf"), "no").expect("written");
        assert!(matches!(disk.read("root/bad.gguf"), Err(Refused::Broken(_))));
    }

    #[test]
    fn nothing_else_is_and_nobody_learns_whether_it_is_there() {
        let disk = Disk::new();
        for path in ["out/good", "out/none", "none", "root/../out/good", "root/../root/good", "/"] {
            assert!(disk.is_refused(path), "{path}");
        }
        let limits = AdapterLimits::default();
        for path in ["root/good", "~/good", ".", ""] {
            let read = read(Path::new(path), std::slice::from_ref(&disk.root), &limits);
            assert!(matches!(read, Err(Refused::NotAllowed)), "{path}");
        }
        let nowhere = read(&disk.root.join("good"), &[], &limits);
        assert!(matches!(nowhere, Err(Refused::NotAllowed)));
    }

    #[cfg(unix)]
    #[test]
    fn links_lead_nowhere_else() {
        use std::os::unix::fs::symlink;
        let disk = Disk::new();
        let out = disk.all.path().join("out");
        symlink(&out, disk.root.join("link")).expect("linked");
        symlink(disk.root.join("good"), disk.root.join("inside")).expect("linked");
        fs::create_dir(disk.root.join("mixed")).expect("made");
        symlink(out.join("good/adapter_config.json"), disk.root.join("mixed/adapter_config.json"))
            .expect("linked");
        for path in ["root/link", "root/link/good", "root/link/none", "root/mixed"] {
            assert!(disk.is_refused(path), "{path}");
        }
        assert!(disk.read("root/inside").is_ok());
    }
}

//! Names in archives: labels that choose a file of ours, never paths, and refused when they try to be more.
use crate::adapter::AdapterError;
use std::collections::HashMap;

/// Longest name, bytes.
const MAX_NAME: usize = 1024;
/// Longest part of a name that an error shows, characters.
const SHOWN: usize = 80;

/// A name without `./` and doubled or closing slashes. Empty for the archive's own root.
pub(super) fn checked(raw: &[u8]) -> Result<String, AdapterError> {
    let shown = String::from_utf8_lossy(raw);
    let refuse = |what: &str| Err(unsafe_entry(&shown, what));
    let Ok(name) = str::from_utf8(raw) else { return refuse("has a name that is not UTF-8") };
    let drive = matches!(name.as_bytes(), [letter, b':', ..] if letter.is_ascii_alphabetic());
    if name.len() > MAX_NAME {
        return refuse("has an endless name");
    } else if name.chars().any(char::is_control) {
        return refuse("has a name with control characters");
    } else if name.contains('\\') {
        return refuse("has a name with a backslash");
    } else if name.starts_with('/') || drive {
        return refuse("has an absolute path");
    }
    let parts: Vec<_> = name.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    if parts.contains(&"..") {
        return refuse("leads out of the archive with `..`");
    }
    Ok(parts.join("/"))
}

/// Splits a checked name into its directory and the rest.
pub(super) fn split(name: &str) -> (&str, &str) {
    name.rsplit_once('/').unwrap_or(("", name))
}

/// Refuses an entry by name.
pub(super) fn unsafe_entry(name: &str, what: &str) -> AdapterError {
    AdapterError::UnsafeArchive(format!(
        "`{}` in the archive {what}: pack nothing but the adapter's own files, as with `tar czf my-task.tar.gz -C \
         my-task .`",
        shown(name)
    ))
}

/// A name as errors and warnings show it.
pub(super) fn shown(name: &str) -> String {
    let cut: String = name.chars().take(SHOWN).collect();
    let more = if cut.len() < name.len() { "…" } else { "" };
    format!("{}{more}", cut.escape_debug())
}

/// Every name of an archive, to find two that are one file on some disk or to some reader.
#[derive(Debug, Default)]
pub(super) struct Seen(HashMap<String, (String, bool)>);

impl Seen {
    /// Notes a checked name; directories may come again.
    pub(super) fn note(&mut self, name: &str, is_directory: bool) -> Result<(), AdapterError> {
        let entry = (name.to_owned(), is_directory);
        let Some((former, former_is_directory)) = self.0.insert(name.to_lowercase(), entry) else {
            return Ok(());
        };
        if former != name {
            let what = format!("differs from `{}` in case only", shown(&former));
            return Err(unsafe_entry(name, &what));
        }
        if is_directory && former_is_directory {
            return Ok(());
        }
        Err(unsafe_entry(name, "comes twice"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_cleaned_of_what_means_nothing() {
        for (raw, clean) in [
            ("adapter_config.json", "adapter_config.json"),
            ("./a//b/./c/", "a/b/c"),
            ("./", ""),
            ("..a/b..", "..a/b.."),
        ] {
            assert_eq!(checked(raw.as_bytes()).expect(raw), clean);
        }
    }

    #[test]
    fn names_that_want_to_be_paths_are_refused() {
        let long = "x".repeat(MAX_NAME + 1);
        for raw in [
            "../a",
            "a/../b",
            "a/..",
            "/etc/passwd",
            "C:\\a",
            "c:a",
            "a\\b",
            "a\0b",
            "a\nb",
            "\u{1b}[2J",
            &long,
        ] {
            let refused = checked(raw.as_bytes()).expect_err(raw).to_string();
            assert!(refused.len() < 400 && !refused.contains('\n'), "{refused}");
        }
        checked(b"\xff\xfe").expect_err("not UTF-8");
    }

    #[test]
    fn twins_are_refused_and_directories_may_repeat() {
        let mut seen = Seen::default();
        seen.note("a", true).expect("new");
        seen.note("a", true).expect("a directory again");
        seen.note("a/b", false).expect("new");
        seen.note("a/b", false).expect_err("twice");
        seen.note("A/b", false).expect_err("a twin");
        seen.note("a", false).expect_err("a file and a directory");
    }
}

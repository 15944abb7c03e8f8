//! A file of keys: one a line, `#` before remarks.
use std::{fmt, fs, path::PathBuf};

/// What the file held when it was read, and where it lies.
#[derive(Clone)]
pub struct KeyFile {
    path: PathBuf,
    keys: Vec<String>,
}

impl KeyFile {
    /// Reads it. A file without keys is refused: it must not open a door.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn read(path: &str) -> Result<Self, String> {
        let text = fs::read_to_string(path).map_err(|error| format!("cannot be read: {error}"))?;
        let keys = keys(&text);
        if keys.is_empty() {
            return Err("has no keys; write one a line, or leave the setting out".into());
        }
        Ok(Self { path: path.into(), keys })
    }

    /// The keys.
    pub fn keys(&self) -> &[String] {
        &self.keys
    }

    /// The file as it is now; `None` where it says the same as before. Blocks.
    pub(super) fn changed(&self) -> Option<Result<Self, String>> {
        let read = Self::read(&self.path.to_string_lossy());
        match &read {
            Ok(now) if now.keys == self.keys => None,
            _ => Some(read),
        }
    }

    /// How messages call it: whole paths are nobody's business.
    pub(super) fn shown(&self) -> String {
        self.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    }
}

impl fmt::Debug for KeyFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyFile({} keys)", self.keys.len())
    }
}

fn keys(text: &str) -> Vec<String> {
    let lines = text.lines().map(str::trim);
    lines.filter(|line| !line.is_empty() && !line.starts_with('#')).map(Into::into).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_a_line_and_remarks_are_none() {
        assert_eq!(keys("# ours\n one \r\n\n#two\nth#ree\n"), ["one", "th#ree"]);
        assert!(keys(" \n# only a remark").is_empty());
        assert!(KeyFile::read("/nowhere/keys").expect_err("not there").contains("cannot be read"));
    }
}

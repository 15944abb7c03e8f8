//! Files of figures.
use super::BenchError;
use serde::Serialize;
use std::{fs, path::Path};

/// Writes `figures` as indented JSON.
pub(super) fn write_json(path: &Path, figures: &impl Serialize) -> Result<(), BenchError> {
    // Numbers and strings under string keys cannot fail to be written.
    write_text(path, &serde_json::to_string_pretty(figures).unwrap_or_default())
}

/// Writes `text`, or says which file cannot be written.
pub(super) fn write_text(path: &Path, text: &str) -> Result<(), BenchError> {
    fs::write(path, text).map_err(BenchError::file(path))
}

/// The text of a file, or which one cannot be read.
pub(super) fn read_text(path: &Path) -> Result<String, BenchError> {
    fs::read_to_string(path).map_err(BenchError::file(path))
}

//! A log of lines at the end of a file.
use super::walk::is_absence;
use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    path::Path,
};

const CHUNK: u64 = 64 << 10;

/// Adds a line; true when the file is new. A turn must be held.
///
/// What stands behind the last line's end was never answered for, so it goes.
pub(super) fn append(path: &Path, line: &str) -> io::Result<bool> {
    let mut file = OpenOptions::new().append(true).create(true).read(true).open(path)?;
    let end = whole_lines(&mut file)?;
    if file.metadata()?.len() != end {
        file.set_len(end)?;
    }
    let written = file.write_all(format!("{line}\n").as_bytes()).and_then(|()| file.sync_data());
    if written.is_err() {
        // The error that led here is the one to tell; the next line removes what stays.
        let _ = file.set_len(end);
    }
    written.map(|()| end == 0)
}

/// The last lines, oldest first.
pub(super) fn tail(path: &Path, count: usize) -> io::Result<Vec<String>> {
    let mut file = match File::open(path) {
        Err(error) if is_absence(&error) => return Ok(Vec::new()),
        other => other?,
    };
    let end = whole_lines(&mut file)?;
    let (mut start, mut bytes, mut ends) = (end, Vec::new(), 0);
    // The end of the line before the first one wanted counts too.
    while start > 0 && ends <= count {
        let from = start.saturating_sub(CHUNK);
        let mut chunk = read(&mut file, from, start - from)?;
        ends += chunk.split(|&byte| byte == b'\n').count() - 1;
        chunk.append(&mut bytes);
        (start, bytes) = (from, chunk);
    }
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<_> = text.lines().collect();
    let wanted = lines.len().saturating_sub(count);
    Ok(lines[wanted..].iter().map(|&line| line.to_owned()).collect())
}

/// Where the last line ends.
fn whole_lines(file: &mut File) -> io::Result<u64> {
    let mut end = file.metadata()?.len();
    while end > 0 {
        let from = end.saturating_sub(CHUNK);
        let chunk = read(file, from, end - from)?;
        if let Some(last) = chunk.iter().rposition(|&byte| byte == b'\n') {
            return Ok(from + last as u64 + 1);
        }
        end = from;
    }
    Ok(0)
}

fn read(file: &mut File, from: u64, count: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(from))?;
    file.take(count).read_to_end(&mut bytes)?;
    Ok(bytes)
}

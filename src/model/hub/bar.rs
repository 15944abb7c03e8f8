//! A download, shown on the terminal.
use hf_hub::progress::{DownloadEvent, FileProgress, ProgressEvent, ProgressHandler};
use indicatif::ProgressBar;
use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

/// Adds the files of a download up into one bar of bytes.
pub(super) struct DownloadBar {
    bar: ProgressBar,
    files: Mutex<HashMap<String, u64>>,
}

impl DownloadBar {
    /// Draws on `bar`.
    pub(super) fn new(bar: ProgressBar) -> Self {
        Self { bar, files: Mutex::default() }
    }

    /// Files report what they have; a file may report twice.
    fn add(&self, progress: &[FileProgress]) -> u64 {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        for file in progress {
            files.insert(file.filename.clone(), file.bytes_completed);
        }
        files.values().sum()
    }
}

impl ProgressHandler for DownloadBar {
    fn on_progress(&self, event: &ProgressEvent) {
        let ProgressEvent::Download(event) = event else { return };
        let bytes = match event {
            DownloadEvent::Start { total_bytes, .. } => return self.bar.set_length(*total_bytes),
            DownloadEvent::Complete => return self.bar.finish_and_clear(),
            DownloadEvent::Progress { files } => self.add(files),
            DownloadEvent::AggregateProgress { bytes_completed, .. } => *bytes_completed,
        };
        // Both kinds count from zero and may tell of the same bytes.
        self.bar.set_position(bytes.max(self.bar.position()));
    }
}

//! What of an archive is unpacked: an adapter's two files, or its one GGUF file, and nothing else ever.
use super::{
    copy::{CopyError, Counted, copy},
    form::broken,
    names::{Seen, checked, shown, split, unsafe_entry},
    staged::Part,
};
use crate::adapter::{
    AdapterError,
    format::{
        CONFIG_FILE, GGUF_ENDING, MAX_CONFIG_BYTES, MODEL_CONFIG_FILE, WEIGHTS_FILE,
        missing_weights, pickle_among,
    },
};
use std::{fs::File, io::Read, path::Path};

/// Most entries of an archive.
pub(super) const MAX_ENTRIES: usize = 4096;
/// What tokenizers, model cards and padding may have beside the adapter, bytes.
const ASIDE_BYTES: u64 = 64 << 20;
/// Ignored files that a warning names.
const NAMED: usize = 8;
/// How files end that are archives themselves.
const ARCHIVES: [&str; 7] = [".zip", ".tar", ".tar.gz", ".tgz", ".gz", ".7z", ".zst"];
/// What lies in an archive that torch saved, which is a pickle in a zip.
const TORCH_FILE: &str = "data.pkl";

/// An entry, as its archive describes it.
#[derive(Debug)]
pub(super) struct Entry<'a> {
    pub(super) name: &'a [u8],
    pub(super) kind: Kind,
    pub(super) bytes: u64,
    /// Permissions as Unix has them; 0 where the archive does not say.
    pub(super) mode: u32,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    File,
    Directory,
    /// A link, a device, a pipe: in words.
    Other(&'static str),
}

/// Sees every entry of an archive, in order.
#[derive(Debug)]
pub(super) struct Plan<'a> {
    /// Where files go.
    directory: &'a Path,
    /// Most bytes of a file.
    limit: u64,
    entries: usize,
    seen: Seen,
    /// With the directories that they lie in.
    taken: Vec<(Part, String)>,
    ignored: Vec<String>,
    pickle: Option<String>,
    nested: Option<String>,
}

impl<'a> Plan<'a> {
    pub(super) fn new(directory: &'a Path, limit: u64) -> Self {
        Self {
            directory,
            limit,
            entries: 0,
            seen: Seen::default(),
            taken: Vec::new(),
            ignored: Vec::new(),
            pickle: None,
            nested: None,
        }
    }

    /// Most bytes that may be read to find an adapter within its limit.
    pub(super) fn most_read(&self) -> u64 {
        self.limit.saturating_mul(2).saturating_add(ASIDE_BYTES)
    }

    pub(super) fn too_large(&self) -> AdapterError {
        AdapterError::TooLarge { bytes: self.limit.saturating_add(1), limit: self.limit }
    }

    /// Which part the entry is, if any; then [`Plan::store`] takes its content.
    pub(super) fn admit(&mut self, entry: &Entry<'_>) -> Result<Option<Part>, AdapterError> {
        self.count_entry()?;
        let name = checked(entry.name)?;
        match entry.kind {
            Kind::Other(what) => return Err(unsafe_entry(&name, what)),
            Kind::File if name.is_empty() => {
                return Err(unsafe_entry(".", "is a file without a name"));
            }
            Kind::File if entry.mode & 0o6000 != 0 => {
                return Err(unsafe_entry(&name, "would run as its owner (set-uid)"));
            }
            Kind::File | Kind::Directory => {}
        }
        let is_directory = entry.kind == Kind::Directory;
        self.seen.note(&name, is_directory)?;
        let (directory, file) = split(&name);
        let mut part = part_of(file).filter(|_| !is_directory);
        if part == Some(Part::ModelConfig) && !self.wants_model_config(entry.bytes) {
            part = None;
        }
        match part {
            Some(part) => self.take(part, &name, directory, entry.bytes)?,
            None if !is_directory => self.ignore(&name, file),
            None => {}
        }
        Ok(part)
    }

    /// The first one of a size that configs have; whether it lies beside the adapter is known at the end.
    fn wants_model_config(&self, bytes: u64) -> bool {
        let came = self.taken.iter().any(|(taken, _)| *taken == Part::ModelConfig);
        !came && bytes <= self.limit_of(Part::ModelConfig)
    }

    fn count_entry(&mut self) -> Result<(), AdapterError> {
        self.entries += 1;
        if self.entries <= MAX_ENTRIES {
            return Ok(());
        }
        Err(AdapterError::UnsafeArchive(format!(
            "the archive has more than {MAX_ENTRIES} entries: pack one adapter's own files only"
        )))
    }

    fn take(
        &mut self,
        part: Part,
        name: &str,
        directory: &str,
        bytes: u64,
    ) -> Result<(), AdapterError> {
        if let Some((_, other)) = self.taken.iter().find(|(taken, _)| *taken == part) {
            let (other, here) = (place(other), place(directory));
            return Err(AdapterError::invalid(format!(
                "the archive has several adapters, in {other} and in {here}: upload each by itself"
            )));
        }
        let limit = self.limit_of(part);
        if bytes > limit && part == Part::Config {
            return Err(AdapterError::invalid(format!(
                "`{}` has {bytes} bytes, which no config of an adapter has: is it the right file?",
                shown(name)
            )));
        } else if bytes > limit {
            return Err(AdapterError::TooLarge { bytes, limit });
        }
        self.taken.push((part, directory.to_owned()));
        Ok(())
    }

    fn ignore(&mut self, name: &str, file: &str) {
        if pickle_among(|known| file == known).is_some() || file == TORCH_FILE {
            self.pickle.get_or_insert_with(|| shown(name));
        } else if ARCHIVES.iter().any(|ending| file.ends_with(ending)) {
            self.nested.get_or_insert_with(|| shown(name));
        }
        self.ignored.push(shown(name));
    }

    fn limit_of(&self, part: Part) -> u64 {
        match part {
            Part::Config | Part::ModelConfig | Part::Labels => MAX_CONFIG_BYTES.min(self.limit),
            Part::Weights | Part::Gguf | Part::Whole => self.limit,
        }
    }

    /// Writes an admitted part, whose archive says that it has `told` bytes.
    pub(super) fn store(
        &self,
        part: Part,
        told: u64,
        from: &mut dyn Read,
    ) -> Result<(), AdapterError> {
        let mut file = File::create_new(self.directory.join(part.file_name()))?;
        let mut from = Counted::new(from, self.limit_of(part));
        match copy(&mut from, &mut file) {
            Ok(bytes) if bytes == told => Ok(()),
            Ok(bytes) => Err(AdapterError::BrokenArchive(format!(
                "the archive says that `{}` has {told} bytes, and it has {bytes}: pack and upload it again",
                part.file_name()
            ))),
            Err(CopyError::Read(_)) if from.over => Err(self.too_large()),
            Err(CopyError::Read(error)) => Err(broken(&error)),
            Err(CopyError::Write(error)) => Err(error.into()),
        }
    }

    /// The archive is at its end: whether an adapter was in it, and what its uploader should know.
    pub(super) fn finish(mut self) -> Result<Vec<String>, AdapterError> {
        self.drop_other_model_config()?;
        let at = |part| self.taken.iter().find(|(taken, _)| *taken == part).map(|(_, at)| at);
        match (at(Part::Config), at(Part::Weights), at(Part::Gguf)) {
            (Some(config), Some(weights), None) if config == weights => {}
            (None, None, Some(_)) => {}
            (Some(config), Some(weights), None) => {
                let (config, weights) = (place(config), place(weights));
                return Err(AdapterError::invalid(format!(
                    "`{CONFIG_FILE}` lies in {config} of the archive and `{WEIGHTS_FILE}` in {weights}: pack one \
                     adapter's directory"
                )));
            }
            (_, _, Some(_)) => {
                return Err(AdapterError::invalid(format!(
                    "the archive has a GGUF file beside `{CONFIG_FILE}` or `{WEIGHTS_FILE}`: leave one of the two \
                     forms out"
                )));
            }
            (config, weights, None) => {
                return Err(self.missing(config.is_some(), weights.is_some()));
            }
        }
        Ok(self.warnings())
    }

    /// A `config.json` that lies elsewhere is another model's.
    fn drop_other_model_config(&mut self) -> Result<(), AdapterError> {
        let of = |part| self.taken.iter().find(|(taken, _)| *taken == part).map(|(_, at)| at);
        let (model, config) = (of(Part::ModelConfig), of(Part::Config));
        let Some(directory) = model.filter(|model| Some(*model) != config).cloned() else {
            return Ok(());
        };
        std::fs::remove_file(self.directory.join(MODEL_CONFIG_FILE))?;
        let name = if directory.is_empty() { String::new() } else { format!("{directory}/") };
        self.ignored.push(shown(&format!("{name}{MODEL_CONFIG_FILE}")));
        Ok(())
    }

    fn missing(&self, config: bool, weights: bool) -> AdapterError {
        match (&self.pickle, &self.nested) {
            (Some(pickle), _) if !weights => return missing_weights(Some(pickle)),
            (_, Some(nested)) if !config && !weights => {
                return AdapterError::invalid(format!(
                    "the archive holds another one, `{nested}`, and no adapter: upload that, or what is in it"
                ));
            }
            _ => {}
        }
        let lacks = match (config, weights) {
            (true, _) => format!("no `{WEIGHTS_FILE}`"),
            (_, true) => format!("no `{CONFIG_FILE}`"),
            _ => format!("neither `{CONFIG_FILE}` and `{WEIGHTS_FILE}` nor a GGUF file"),
        };
        let found = match &self.ignored[..] {
            [] => String::new(),
            ignored => format!("; there are {}", listed(ignored)),
        };
        AdapterError::invalid(format!("the archive has {lacks}{found}"))
    }

    fn warnings(&self) -> Vec<String> {
        match &self.ignored[..] {
            [] => Vec::new(),
            ignored => vec![format!("ignored in the archive: {}", listed(ignored))],
        }
    }
}

fn part_of(file: &str) -> Option<Part> {
    match file {
        CONFIG_FILE => Some(Part::Config),
        WEIGHTS_FILE => Some(Part::Weights),
        MODEL_CONFIG_FILE => Some(Part::ModelConfig),
        // macOS packs `._NAME` beside a file.
        file if file.ends_with(GGUF_ENDING) && !file.starts_with('.') => Some(Part::Gguf),
        _ => None,
    }
}

fn place(directory: &str) -> String {
    match directory {
        "" => "its root".to_owned(),
        directory => format!("`{}`", shown(directory)),
    }
}

fn listed(names: &[String]) -> String {
    let first = names[..names.len().min(NAMED)].join(", ");
    match names.len().checked_sub(NAMED) {
        None | Some(0) => first,
        Some(more) => format!("{first} and {more} more"),
    }
}

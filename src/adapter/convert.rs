//! One adapter in the other form: GGUF as PEFT's directory, PEFT's directory as GGUF.
use super::{
    AdapterError, AdapterFiles, AdapterLimits,
    format::{self, gguf, gguf_in},
    store::replace_directory,
};
use crate::{gguf::Storage, lora::LoraLayout};
use std::{
    fs,
    io::{self, Write},
    path::Path,
};

/// What has to be known of the base.
#[derive(Debug)]
pub struct ConvertBase {
    /// `architectures` of its `config.json`.
    pub class: &'static str,
    /// Its layers.
    pub layout: LoraLayout,
}

/// A GGUF adapter as PEFT would have saved it; without a base where rows keep their order.
///
/// # Errors
/// When the adapter is refused, or the order of rows depends on a base that was not given.
pub fn to_peft(
    files: &AdapterFiles,
    base: Option<&ConvertBase>,
    limits: &AdapterLimits,
) -> Result<AdapterFiles, AdapterError> {
    let AdapterFiles::Gguf(bytes) = files else {
        return Err(AdapterError::invalid("the adapter is in PEFT's form already"));
    };
    let layout = base.map(|base| &base.layout);
    format::check(files, layout, limits)?;
    let peft = gguf::translate(bytes, layout)?;
    if peft.rows_in_pairs {
        return Err(AdapterError::invalid(
            "llama.cpp keeps rows of q_proj and k_proj in another order for this architecture, which depends on the \
             number of heads: name the base with --model",
        ));
    }
    Ok(AdapterFiles::Peft { config: peft.config, weights: peft.weights })
}

/// A PEFT adapter as llama.cpp's converter would write it; `storage` is the type of its factors, their own where it is
/// `None`.
///
/// # Errors
/// When the adapter is refused, or has what a GGUF adapter cannot carry.
pub fn to_gguf(
    files: &AdapterFiles,
    base: &ConvertBase,
    name: &str,
    storage: Option<Storage>,
    limits: &AdapterLimits,
) -> Result<AdapterFiles, AdapterError> {
    let AdapterFiles::Peft { config, weights } = files else {
        return Err(AdapterError::invalid("the adapter is a GGUF file already"));
    };
    format::check(files, Some(&base.layout), limits)?;
    let target = gguf::Target { class: base.class, layout: &base.layout, name, storage };
    let file = format::export(config, weights, &target, limits)?;
    Ok(AdapterFiles::Gguf(file.into()))
}

/// Puts an adapter where `destination` says, all or nothing; what is there is replaced only by `force`.
///
/// # Errors
/// When something is there, or the disk fails.
pub fn write(files: &AdapterFiles, destination: &Path, force: bool) -> Result<(), AdapterError> {
    let is_adapter = AdapterFiles::is_at(destination);
    let exists = fs::symlink_metadata(destination).is_ok();
    if exists && !force {
        return Err(AdapterError::invalid("it exists already: choose another place, or --force"));
    }
    if exists && !is_adapter && fs::read_dir(destination).is_ok_and(|mut d| d.next().is_some()) {
        return Err(AdapterError::invalid("it is a directory of something else"));
    }
    if let Some(file) = gguf_in(destination) {
        let reason = format!("it holds the GGUF file `{file}`: choose another place, or move it");
        return Err(AdapterError::invalid(reason));
    }
    let (Some(name), Some(parent)) = (destination.file_name(), destination.parent()) else {
        return Err(AdapterError::invalid("it is no place for an adapter"));
    };
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    let name = name.to_str().ok_or_else(|| AdapterError::invalid("its name is not UTF-8"))?;
    match files {
        AdapterFiles::Peft { .. } => Ok(replace_directory(parent, name, files)?),
        AdapterFiles::Gguf(bytes) => {
            let incoming = parent.join(format!(".incoming-{name}"));
            let done =
                write_file(&incoming, bytes).and_then(|()| fs::rename(&incoming, destination));
            if done.is_err() {
                // The error that led here is the one to tell.
                let _ = fs::remove_file(&incoming);
            }
            Ok(done?)
        }
    }
}

fn write_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = fs::File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

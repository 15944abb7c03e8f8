//! Which form an upload has, by how it begins; what a client calls it does not count.
use crate::{adapter::AdapterError, gguf};
use std::{
    fs::File,
    io::{self, Read, Seek},
};

/// A tar's block, whose header is the longest beginning that is looked at.
const BLOCK: usize = 512;

/// Forms that hold a whole adapter.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::adapter) enum Form {
    Gguf,
    Tar,
    Gzip,
    Zip,
}

/// The form of `file`, which is at its beginning afterwards.
pub(in crate::adapter) fn recognise(file: &mut File) -> Result<Form, AdapterError> {
    let mut start = Vec::with_capacity(BLOCK);
    file.by_ref().take(BLOCK as u64).read_to_end(&mut start)?;
    file.rewind()?;
    form_of(&start).map_err(|other| {
        AdapterError::UnknownForm(format!(
            "the body is {other}: send a GGUF file, a tar, tar.gz or zip of the adapter's directory, or \
             multipart/form-data with the parts `config` (adapter_config.json) and `weights` \
             (adapter_model.safetensors)"
        ))
    })
}

fn form_of(start: &[u8]) -> Result<Form, &'static str> {
    match start {
        [] => Err("empty"),
        [b'P', b'K', 3, 4, ..] | [b'P', b'K', 5, 6, ..] => Ok(Form::Zip),
        [0x1f, 0x8b, ..] => Ok(Form::Gzip),
        start if start.starts_with(gguf::MAGIC) => Ok(Form::Gguf),
        start if is_tar(start) => Ok(Form::Tar),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Err("compressed with zstd"),
        [0xfd, b'7', b'z', b'X', b'Z', ..] => Err("compressed with xz"),
        [b'B', b'Z', b'h', ..] => Err("compressed with bzip2"),
        [b'7', b'z', 0xbc, 0xaf, ..] => Err("a 7z archive"),
        [b'R', b'a', b'r', b'!', ..] => Err("a RAR archive"),
        [0x80, 2..=5, ..] => Err("a pickle, which can run code when it is read"),
        [_, _, _, _, _, _, _, 0, b'{', ..] => Err("a safetensors file without its config"),
        [b'{', ..] => Err("JSON alone"),
        _ => Err("of no known form"),
    }
}

/// A header block carries its own sum; old ones carry no name of their form.
fn is_tar(start: &[u8]) -> bool {
    if start.len() < BLOCK {
        return false;
    }
    let sum = |range: &[u8]| range.iter().map(|byte| u64::from(*byte)).sum::<u64>();
    let (told, rest) = (&start[148..156], sum(&start[..148]) + sum(&start[156..]));
    let octal = told.iter().filter(|c| (b'0'..=b'7').contains(c));
    let told = octal.fold(0u64, |value, digit| value * 8 + u64::from(digit - b'0'));
    start[0] != 0 && told == rest + 8 * u64::from(b' ')
}

/// An archive's own error is the client's; one of the disk under it is ours.
pub(super) fn broken(error: &io::Error) -> AdapterError {
    AdapterError::BrokenArchive(format!(
        "the archive is broken or was cut ({error}): pack and upload it again"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_called_what_it_is() {
        for (start, told) in [
            (b"".as_slice(), "empty"),
            (b"{\"r\": 8}", "JSON"),
            (b"\x80\x02}q", "pickle"),
            (b"\x10\x00\x00\x00\x00\x00\x00\x00{\"a\"", "safetensors"),
            (b"\x28\xb5\x2f\xfd", "zstd"),
            (b"hello", "no known form"),
            (&[0; 2 * BLOCK], "no known form"),
        ] {
            let refused = form_of(start).expect_err("refused");
            assert!(refused.contains(told), "{refused}");
        }
        assert_eq!(form_of(b"GGUF\x03"), Ok(Form::Gguf));
        assert_eq!(form_of(b"PK\x03\x04"), Ok(Form::Zip));
    }

    #[test]
    fn a_tar_is_known_by_its_sum_even_without_a_name() {
        for mut header in [tar::Header::new_old(), tar::Header::new_ustar(), tar::Header::new_gnu()]
        {
            header.set_path("adapter_config.json").expect("a path");
            header.set_size(2);
            header.set_cksum();
            assert_eq!(form_of(header.as_bytes()), Ok(Form::Tar));
            header.as_mut_bytes()[0] ^= 1;
            assert!(form_of(header.as_bytes()).is_err());
        }
    }
}

//! Tensors out of a safetensors file that nobody has checked yet.
use crate::adapter::AdapterError;
use half::{bf16, f16};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde::de::{Deserializer as _, IgnoredAny, MapAccess, Visitor};
use std::{
    collections::{BTreeMap, HashSet},
    fmt,
};

/// A thousand layers with seven adapted projections each have 14,000 tensors and a header of 2 MiB.
const MAX_HEADER_BYTES: u64 = 4 << 20;
const MAX_TENSORS: usize = 16_384;

/// Every tensor of the file by its name. The `safetensors` crate checks offsets and sizes; this adds what it lets
/// through: the size of the header, duplicate names, and files that are something else altogether.
///
/// # Errors
/// When the file is not a well-formed safetensors file within the limits.
pub(super) fn open(bytes: &[u8]) -> Result<BTreeMap<String, TensorView<'_>>, AdapterError> {
    refuse_other_formats(bytes)?;
    check_header(bytes)?;
    let file = SafeTensors::deserialize(bytes).map_err(|error| broken(&error.to_string()))?;
    Ok(file.tensors().into_iter().collect())
}

fn broken(reason: &str) -> AdapterError {
    AdapterError::invalid(format!(
        "adapter_model.safetensors is broken ({reason}): save or upload it again"
    ))
}

fn refuse_other_formats(bytes: &[u8]) -> Result<(), AdapterError> {
    let kind = match bytes {
        [b'P', b'K', 3, 4, ..] | [0x80, 2..=5, b'}' | b'c' | b']' | 0x8a | 0x95, ..] => "a pickle",
        [b'G', b'G', b'U', b'F', ..] => "a GGUF file",
        _ => return Ok(()),
    };
    Err(AdapterError::unsupported(format!(
        "adapter_model.safetensors is {kind}; only safetensors files are read: save the adapter with PEFT's \
         save_pretrained"
    )))
}

fn check_header(bytes: &[u8]) -> Result<(), AdapterError> {
    let Some((length, rest)) = bytes.split_first_chunk::<8>() else {
        return Err(broken(&format!("{} bytes are less than a header", bytes.len())));
    };
    let length = u64::from_le_bytes(*length);
    if length > MAX_HEADER_BYTES {
        return Err(broken(&format!(
            "its header claims {length} bytes, the limit is {MAX_HEADER_BYTES}"
        )));
    }
    let Some(header) = rest.get(..length as usize) else {
        return Err(broken(&format!("its header claims {length} bytes of {}", rest.len())));
    };
    if header.first() != Some(&b'{') {
        return Err(broken("its header does not begin with `{`"));
    }
    serde_json::Deserializer::from_slice(header)
        .deserialize_map(UniqueNames)
        .map_err(|error| broken(&error.to_string()))
}

/// Reads the header's keys and nothing else.
struct UniqueNames;

impl<'de> Visitor<'de> for UniqueNames {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut names = HashSet::new();
        while let Some(name) = map.next_key::<String>()? {
            map.next_value::<IgnoredAny>()?;
            if names.len() > MAX_TENSORS {
                return Err(serde::de::Error::custom(format!("more than {MAX_TENSORS} tensors")));
            }
            if names.contains(&name) {
                return Err(serde::de::Error::custom(format!("{} twice", quoted(&name))));
            }
            names.insert(name);
        }
        Ok(())
    }
}

/// The elements as f32, which holds every f16 and bf16 exactly.
///
/// # Errors
/// When the dtype is another, or an element is not finite.
pub(super) fn to_f32(name: &str, view: &TensorView<'_>) -> Result<Vec<f32>, AdapterError> {
    let data = view.data();
    let values: Vec<f32> = match view.dtype() {
        Dtype::F32 => data.as_chunks().0.iter().map(|c| f32::from_le_bytes(*c)).collect(),
        Dtype::F16 => data.as_chunks().0.iter().map(|c| f16::from_le_bytes(*c).to_f32()).collect(),
        Dtype::BF16 => {
            data.as_chunks().0.iter().map(|c| bf16::from_le_bytes(*c).to_f32()).collect()
        }
        other => {
            return Err(AdapterError::unsupported(format!(
                "tensor {} is {other:?}; adapters are F32, F16 or BF16",
                quoted(name)
            )));
        }
    };
    match values.iter().position(|value| !value.is_finite()) {
        Some(at) => Err(AdapterError::invalid(format!(
            "tensor {} has {} at element {at}: the training has diverged or the file is damaged",
            quoted(name),
            values[at]
        ))),
        None => Ok(values),
    }
}

/// A name out of a file, safe to print and of bounded length.
pub(super) fn quoted(name: &str) -> String {
    format!("`{}`", cut(name, 160).escape_debug())
}

/// A JSON value out of a config, safe to print and of bounded length.
pub(super) fn shown(value: &serde_json::Value) -> String {
    let text = value.to_string();
    format!("`{}`", cut(&text, 80))
}

fn cut(text: &str, chars: usize) -> String {
    match text.char_indices().nth(chars) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(header: &str, data: &[u8]) -> Vec<u8> {
        [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
    }

    fn reason(bytes: &[u8]) -> String {
        open(bytes).expect_err("refused").to_string()
    }

    #[test]
    fn headers_that_lie_are_refused() {
        assert!(reason(b"").contains("0 bytes"));
        assert!(reason(&[0; 8]).contains("begin with"));
        assert!(reason(&u64::MAX.to_le_bytes()).contains("limit"));
        assert!(reason(&[9, 0, 0, 0, 0, 0, 0, 0, b'{']).contains("9 bytes of 1"));
        assert!(reason(&file(" {}", b"")).contains("begin with"));
        assert!(reason(&file("{}", b"x")).contains("broken"));
        assert!(reason(&file(&"{\"a\":".repeat(100_000), b"")).contains("broken"));
    }

    #[test]
    fn the_same_name_twice_is_refused_even_for_the_same_bytes() {
        let tensor = r#""x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}"#;
        assert!(reason(&file(&format!("{{{tensor},{tensor}}}"), &[0; 4])).contains("`x` twice"));
        assert_eq!(open(&file(&format!("{{{tensor}}}"), &[0; 4])).expect("one").len(), 1);
    }

    #[test]
    fn a_flood_of_empty_tensors_is_refused() {
        let tensor = |i| format!(r#""{i}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}"#);
        let tensors: Vec<_> = (0..MAX_TENSORS + 2).map(tensor).collect();
        assert!(reason(&file(&format!("{{{}}}", tensors.join(",")), b"")).contains("more than"));
    }

    #[test]
    fn pickles_are_named_and_never_read() {
        assert!(reason(b"PK\x03\x04whatever").contains("pickle"));
        assert!(reason(b"\x80\x02}q\x00.").contains("pickle"));
        assert!(reason(b"GGUF\x03\x00\x00\x00").contains("GGUF"));
    }
}

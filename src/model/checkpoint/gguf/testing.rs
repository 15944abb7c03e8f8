//! Small files for tests, written value by value.
use crate::gguf::{GgufFile, Value};
use bytes::Bytes;

/// Text with its length before it.
pub(super) fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
}

/// A file of these values, and of f32 tensors full of ones.
pub(super) fn file(values: &[(&str, Value)], tensors: &[(&str, &[usize])]) -> GgufFile {
    const ALIGNMENT: usize = 32;
    let mut bytes = b"GGUF\x03\0\0\0".to_vec();
    bytes.extend((tensors.len() as u64).to_le_bytes());
    bytes.extend((values.len() as u64).to_le_bytes());
    for (key, value) in values {
        bytes.extend(text(key));
        bytes.extend(encoded(value));
    }
    let mut data = Vec::new();
    for (name, shape) in tensors {
        bytes.extend(text(name));
        bytes.extend((shape.len() as u32).to_le_bytes());
        shape.iter().rev().for_each(|dim| bytes.extend((*dim as u64).to_le_bytes()));
        bytes.extend(0_u32.to_le_bytes());
        bytes.extend((data.len() as u64).to_le_bytes());
        data.extend(1.0_f32.to_le_bytes().repeat(shape.iter().product()));
        data.resize(data.len().next_multiple_of(ALIGNMENT), 0);
    }
    bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
    bytes.extend(data);
    GgufFile::parse("test.gguf".into(), Bytes::from(bytes)).expect("a sound file")
}

fn encoded(value: &Value) -> Vec<u8> {
    let (kind, bytes) = match value {
        Value::Bool(flag) => (7_u32, vec![u8::from(*flag)]),
        Value::Text(content) => (8, text(content)),
        Value::Unsigned(number) => (10, number.to_le_bytes().to_vec()),
        Value::Signed(number) => (11, number.to_le_bytes().to_vec()),
        Value::Float(number) => (12, number.to_le_bytes().to_vec()),
        Value::Array(_) => unreachable!("no test writes one"),
    };
    [&kind.to_le_bytes()[..], &bytes].concat()
}

//! The container: a header of named values, a list of tensors, and their data.
use super::{
    GgufError, MAGIC,
    blocks::Storage,
    cursor::Cursor,
    value::{Array, Kind, Value},
};
use bytes::Bytes;
use std::{collections::BTreeMap, ops::Range};

const ALIGNMENT: &str = "general.alignment";
pub(super) const DEFAULT_ALIGNMENT: usize = 32;
const MAX_DIMS: u32 = 4;
/// Key length, type, one byte.
const LEAST_ENTRY_BYTES: usize = 13;
/// Name length, dimensions, type, offset.
const LEAST_TENSOR_BYTES: usize = 24;

/// An open file. Every tensor's data is known to lie within it.
pub struct GgufFile {
    place: String,
    bytes: Bytes,
    values: BTreeMap<String, Value>,
    tensors: BTreeMap<String, TensorEntry>,
}

/// One tensor in the file.
#[derive(Clone, Debug)]
pub struct TensorEntry {
    /// Outermost dimension first.
    pub shape: Vec<usize>,
    /// How its numbers are stored.
    pub storage: Storage,
    data: Range<usize>,
}

impl GgufFile {
    /// Checks the header of a file's bytes. `place` names the file in messages.
    ///
    /// # Errors
    /// When it is no GGUF file, is damaged, or holds types that are not read.
    pub fn parse(place: String, bytes: Bytes) -> Result<Self, GgufError> {
        match parse(&bytes) {
            Ok((values, tensors)) => Ok(Self { place, bytes, values, tensors }),
            Err(detail) => Err(GgufError { place, detail }),
        }
    }

    /// The file, for messages.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// An error about this file.
    pub fn wrong(&self, detail: impl Into<String>) -> GgufError {
        GgufError { place: self.place.clone(), detail: detail.into() }
    }

    /// Every tensor by its name in the file.
    pub fn tensors(&self) -> &BTreeMap<String, TensorEntry> {
        &self.tensors
    }

    /// A tensor's data.
    pub fn data(&self, entry: &TensorEntry) -> &[u8] {
        &self.bytes[entry.data.clone()]
    }

    /// Every value of the header.
    pub fn values(&self) -> &BTreeMap<String, Value> {
        &self.values
    }

    /// A whole number that is not negative.
    ///
    /// # Errors
    /// When the value is something else.
    pub fn unsigned(&self, key: &str) -> Result<Option<u64>, GgufError> {
        self.typed(key, "a whole number", Value::unsigned)
    }

    /// A number.
    ///
    /// # Errors
    /// When the value is something else.
    pub fn float(&self, key: &str) -> Result<Option<f64>, GgufError> {
        self.typed(key, "a number", |value| match value {
            Value::Float(number) => Some(*number),
            whole => whole.unsigned().map(|number| number as f64),
        })
    }

    /// A truth value.
    ///
    /// # Errors
    /// When the value is something else.
    pub fn flag(&self, key: &str) -> Result<Option<bool>, GgufError> {
        self.typed(key, "true or false", |value| match value {
            Value::Bool(flag) => Some(*flag),
            _ => None,
        })
    }

    /// A text.
    ///
    /// # Errors
    /// When the value is something else.
    pub fn text(&self, key: &str) -> Result<Option<&str>, GgufError> {
        self.typed(key, "a text", |value| match value {
            Value::Text(text) => Some(text.as_str()),
            _ => None,
        })
    }

    /// A list of texts, which lie in the file.
    ///
    /// # Errors
    /// When the value is something else.
    pub fn texts(&self, key: &str) -> Result<Option<Vec<&str>>, GgufError> {
        let Some(array) = self.array(key, "a list of texts", &[Kind::Text])? else {
            return Ok(None);
        };
        let mut cursor = Cursor::new(&self.bytes, array.at);
        let texts: Result<_, _> = (0..array.len).map(|_| cursor.text()).collect();
        texts.map(Some).map_err(|detail| self.wrong(detail))
    }

    /// A list of numbers.
    ///
    /// # Errors
    /// When the value is something else.
    pub fn numbers(&self, key: &str) -> Result<Option<Vec<f64>>, GgufError> {
        const NUMBERS: [Kind; 3] = [Kind::F32, Kind::I32, Kind::U32];
        let Some(array) = self.array(key, "a list of numbers", &NUMBERS)? else { return Ok(None) };
        let mut cursor = Cursor::new(&self.bytes, array.at);
        let number = |value| match value {
            Value::Float(number) => number,
            Value::Signed(number) => number as f64,
            other => other.unsigned().unwrap_or_default() as f64,
        };
        let numbers: Result<_, _> =
            (0..array.len).map(|_| Value::read(&mut cursor, array.kind).map(number)).collect();
        numbers.map(Some).map_err(|detail| self.wrong(detail))
    }

    fn array(&self, key: &str, wanted: &str, kinds: &[Kind]) -> Result<Option<Array>, GgufError> {
        self.typed(key, wanted, |value| match value {
            Value::Array(array) if kinds.contains(&array.kind) => Some(*array),
            _ => None,
        })
    }

    fn typed<'a, T>(
        &'a self,
        key: &str,
        wanted: &str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, GgufError> {
        let Some(value) = self.values.get(key) else { return Ok(None) };
        match read(value) {
            None => Err(self.wrong(format!("has `{key}`, which is not {wanted}"))),
            read => Ok(read),
        }
    }
}

impl TensorEntry {
    /// The numbers it stands for: f32, or the f16 or bf16 it is stored as.
    ///
    /// # Errors
    /// When memory is short.
    pub fn read(&self, file: &GgufFile) -> candle_core::Result<candle_core::Tensor> {
        self.storage.tensor(file.data(self), &self.shape)
    }
}

type Header = (BTreeMap<String, Value>, BTreeMap<String, TensorEntry>);

fn parse(bytes: &[u8]) -> Result<Header, String> {
    let mut cursor = Cursor::new(bytes, 0);
    version(&mut cursor)?;
    let tensors = cursor.count("tensors", LEAST_TENSOR_BYTES)?;
    let entries = cursor.count("entries", LEAST_ENTRY_BYTES)?;
    let mut values = BTreeMap::new();
    for _ in 0..entries {
        let key = cursor.text()?.to_owned();
        let kind = Kind::read(&mut cursor)?;
        let value = Value::read(&mut cursor, kind)?;
        if values.insert(key.clone(), value).is_some() {
            return Err(format!("has two values for `{key}`"));
        }
    }
    let alignment = alignment(&values)?;
    let entries: Vec<_> =
        (0..tensors).map(|_| tensor_entry(&mut cursor, alignment)).collect::<Result<_, _>>()?;
    let data_start = cursor.position().next_multiple_of(alignment);
    let mut tensors = BTreeMap::new();
    for (name, mut entry) in entries {
        place(&name, &mut entry, data_start, bytes.len())?;
        if tensors.insert(name.clone(), entry).is_some() {
            return Err(format!("has two tensors `{name}`"));
        }
    }
    Ok((values, tensors))
}

fn version(cursor: &mut Cursor<'_>) -> Result<(), String> {
    if cursor.left() < MAGIC.len() || cursor.array::<4>()? != *MAGIC {
        return Err("is not a GGUF file".to_owned());
    }
    match cursor.u32()? {
        2 | 3 => Ok(()),
        swapped if matches!(swapped.swap_bytes(), 1..=3) => {
            Err("is a big-endian GGUF file; convert the model again on a common machine".to_owned())
        }
        other => {
            Err(format!("has GGUF version {other}; 2 and 3 are read, convert the model again"))
        }
    }
}

fn alignment(values: &BTreeMap<String, Value>) -> Result<usize, String> {
    /// A block of any type begins at an address its numbers may have.
    const LEAST: usize = 8;
    const MOST: usize = 1 << 20;
    let Some(value) = values.get(ALIGNMENT) else { return Ok(DEFAULT_ALIGNMENT) };
    value
        .unsigned()
        .and_then(|alignment| usize::try_from(alignment).ok())
        .filter(|alignment| alignment.is_power_of_two() && (LEAST..=MOST).contains(alignment))
        .ok_or_else(|| format!("has `{ALIGNMENT}`, which is not a power of two from {LEAST} on"))
}

/// A tensor's name and entry; its data still counts from the start of all data.
fn tensor_entry(
    cursor: &mut Cursor<'_>,
    alignment: usize,
) -> Result<(String, TensorEntry), String> {
    let name = cursor.text()?.to_owned();
    let dims = cursor.u32()?;
    if !(1..=MAX_DIMS).contains(&dims) {
        return Err(format!("has tensor `{name}` with {dims} dimensions; it is damaged"));
    }
    let shape: Result<Vec<usize>, String> =
        (0..dims).map(|_| usize::try_from(cursor.u64()?).map_err(|_| too_large(&name))).collect();
    let mut shape = shape?;
    let cols = shape[0];
    shape.reverse();
    let number = cursor.u32()?;
    let storage = Storage::from_number(number).ok_or_else(|| {
        format!(
            "has tensor `{name}` in GGML type {number}, which is not read; f32, f16, bf16, q4_0 to q8_0 and q2_K \
             to q6_K are"
        )
    })?;
    let rows =
        shape[..shape.len() - 1].iter().try_fold(1_usize, |rows, dim| rows.checked_mul(*dim));
    let bytes = rows.and_then(|rows| storage.bytes(rows, cols)).ok_or_else(|| too_large(&name))?;
    let start = usize::try_from(cursor.u64()?).map_err(|_| too_large(&name))?;
    let end = start.checked_add(bytes).ok_or_else(|| too_large(&name))?;
    if !start.is_multiple_of(alignment) {
        return Err(format!("has tensor `{name}` at {start}, no multiple of {alignment}"));
    }
    Ok((name, TensorEntry { shape, storage, data: start..end }))
}

/// Makes `entry.data` count from the start of the file, which must hold it.
fn place(name: &str, entry: &mut TensorEntry, start: usize, len: usize) -> Result<(), String> {
    let end = start.checked_add(entry.data.end).ok_or_else(|| too_large(name))?;
    if end > len {
        return Err(format!(
            "has {len} bytes, tensor `{name}` ends at {end}: it is not whole, fetch it again"
        ));
    }
    entry.data = start + entry.data.start..end;
    Ok(())
}

fn too_large(name: &str) -> String {
    format!("has tensor `{name}`, whose shape or place no file can have; it is damaged")
}

//! Writes a file: header, list of tensors, their data.
use super::{MAGIC, blocks::Storage, file::DEFAULT_ALIGNMENT, value::Kind};
use candle_core::{Result, Tensor};

const VERSION: u32 = 3;

/// A file in the making; values and tensors stand in it in the order of the calls.
#[derive(Debug, Default)]
pub struct GgufWriter {
    values: Vec<u8>,
    value_count: u64,
    entries: Vec<u8>,
    tensor_count: u64,
    data: Vec<u8>,
}

impl GgufWriter {
    /// Nothing in it.
    pub fn new() -> Self {
        Self::default()
    }

    /// A text.
    pub fn text(&mut self, key: &str, value: &str) {
        self.value(key, Kind::Text, &text(value));
    }

    /// A 32-bit number.
    pub fn u32(&mut self, key: &str, value: u32) {
        self.value(key, Kind::U32, &value.to_le_bytes());
    }

    /// A 32-bit float.
    pub fn f32(&mut self, key: &str, value: f32) {
        self.value(key, Kind::F32, &value.to_le_bytes());
    }

    /// A list of 32-bit numbers.
    pub fn u32s(&mut self, key: &str, values: &[u32]) {
        let mut bytes = (Kind::U32 as u32).to_le_bytes().to_vec();
        bytes.extend((values.len() as u64).to_le_bytes());
        bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        self.value(key, Kind::Array, &bytes);
    }

    /// A tensor, its elements stored as `storage` has them.
    ///
    /// # Errors
    /// When `storage` cannot hold rows of that length, or is no type of the format.
    pub fn tensor(&mut self, name: &str, tensor: &Tensor, storage: Storage) -> Result<()> {
        let Some(number) = storage.number() else {
            candle_core::bail!("{storage} is no type of the format")
        };
        self.tensor_count += 1;
        self.entries.extend(text(name));
        self.entries.extend((tensor.rank() as u32).to_le_bytes());
        for dim in tensor.dims().iter().rev() {
            self.entries.extend((*dim as u64).to_le_bytes());
        }
        self.entries.extend(number.to_le_bytes());
        self.entries.extend((self.data.len() as u64).to_le_bytes());
        self.data.extend(storage.encode(tensor)?);
        pad(&mut self.data);
        Ok(())
    }

    /// The whole file.
    pub fn finish(self) -> Vec<u8> {
        let mut file = MAGIC.to_vec();
        file.extend(VERSION.to_le_bytes());
        file.extend(self.tensor_count.to_le_bytes());
        file.extend(self.value_count.to_le_bytes());
        file.extend(self.values);
        file.extend(self.entries);
        pad(&mut file);
        file.extend(self.data);
        file
    }

    fn value(&mut self, key: &str, kind: Kind, bytes: &[u8]) {
        self.value_count += 1;
        self.values.extend(text(key));
        self.values.extend((kind as u32).to_le_bytes());
        self.values.extend(bytes);
    }
}

/// Text with its length before it.
fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(DEFAULT_ALIGNMENT), 0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gguf::GgufFile;
    use candle_core::{DType, Device};

    #[test]
    fn what_is_written_is_read_again() {
        let tensor = Tensor::arange(0_f32, 64.0, &Device::Cpu).unwrap().reshape((2, 32)).unwrap();
        let mut writer = GgufWriter::new();
        writer.text("a.text", "grün");
        writer.u32("a.number", 7);
        writer.f32("a.float", 0.5);
        writer.u32s("a.list", &[1, 2, 3]);
        for (name, storage) in [
            ("f32", Storage::F32),
            ("f16", Storage::F16),
            ("bf16", Storage::BF16),
            ("q8_0", Storage::Q8_0),
        ] {
            writer.tensor(name, &tensor, storage).unwrap();
        }
        let file = GgufFile::parse("test".into(), writer.finish().into()).unwrap();
        assert_eq!(file.text("a.text").unwrap(), Some("grün"));
        assert_eq!(file.unsigned("a.number").unwrap(), Some(7));
        assert_eq!(file.float("a.float").unwrap(), Some(0.5));
        assert_eq!(file.numbers("a.list").unwrap(), Some(vec![1.0, 2.0, 3.0]));
        let wanted = tensor.to_vec2::<f32>().unwrap();
        for (name, entry) in file.tensors() {
            let read = entry.read(&file).unwrap().to_dtype(DType::F32).unwrap();
            let read = read.to_vec2::<f32>().unwrap();
            let bound = if name == "q8_0" { 63.0 / 254.0 } else { 0.0 };
            for (got, want) in read.iter().flatten().zip(wanted.iter().flatten()) {
                assert!((got - want).abs() <= bound, "{name}: {got} for {want}");
            }
        }
        assert!(GgufWriter::new().tensor("x", &tensor.t().unwrap(), Storage::Q8_0).is_err());
    }
}

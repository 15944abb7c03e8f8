//! The values a GGUF header can hold.
use super::cursor::Cursor;

/// Arrays of arrays stop here; no known file has one.
const MAX_DEPTH: usize = 2;

/// A value's type, with the format's number for it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// An octet.
    U8,
    /// A signed octet.
    I8,
    /// 16 bits.
    U16,
    /// 16 bits, signed.
    I16,
    /// 32 bits.
    U32,
    /// 32 bits, signed.
    I32,
    /// A 32-bit float.
    F32,
    /// True or false.
    Bool,
    /// UTF-8.
    Text,
    /// Values of one type.
    Array,
    /// 64 bits.
    U64,
    /// 64 bits, signed.
    I64,
    /// A 64-bit float.
    F64,
}

/// By the format's number.
const KINDS: [Kind; 13] = [
    Kind::U8,
    Kind::I8,
    Kind::U16,
    Kind::I16,
    Kind::U32,
    Kind::I32,
    Kind::F32,
    Kind::Bool,
    Kind::Text,
    Kind::Array,
    Kind::U64,
    Kind::I64,
    Kind::F64,
];

/// One value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Any of the unsigned types.
    Unsigned(u64),
    /// Any of the signed types.
    Signed(i64),
    /// Either float.
    Float(f64),
    /// True or false.
    Bool(bool),
    /// UTF-8.
    Text(String),
    /// Checked, and read when asked for: a vocabulary need not be in memory twice.
    Array(Array),
}

/// Elements of one kind that begin at a byte of the file.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Array {
    pub(super) kind: Kind,
    pub(super) len: usize,
    pub(super) at: usize,
}

impl Kind {
    /// From its number in the file.
    pub(super) fn read(cursor: &mut Cursor<'_>) -> Result<Self, String> {
        let number = cursor.u32()?;
        KINDS.get(number as usize).copied().ok_or_else(|| {
            format!(
                "has a value of the unknown type {number}; it is damaged, or newer than this build"
            )
        })
    }

    /// Bytes a value takes at least.
    fn least_bytes(self) -> usize {
        match self {
            Self::U8 | Self::I8 | Self::Bool => 1,
            Self::U16 | Self::I16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::I64 | Self::F64 | Self::Text => 8,
            Self::Array => 12,
        }
    }
}

impl Value {
    /// A value of `kind`.
    pub(super) fn read(cursor: &mut Cursor<'_>, kind: Kind) -> Result<Self, String> {
        Ok(match kind {
            Kind::U8 => Self::Unsigned(u8::from_le_bytes(cursor.array()?).into()),
            Kind::U16 => Self::Unsigned(u16::from_le_bytes(cursor.array()?).into()),
            Kind::U32 => Self::Unsigned(cursor.u32()?.into()),
            Kind::U64 => Self::Unsigned(cursor.u64()?),
            Kind::I8 => Self::Signed(i8::from_le_bytes(cursor.array()?).into()),
            Kind::I16 => Self::Signed(i16::from_le_bytes(cursor.array()?).into()),
            Kind::I32 => Self::Signed(i32::from_le_bytes(cursor.array()?).into()),
            Kind::I64 => Self::Signed(i64::from_le_bytes(cursor.array()?)),
            Kind::F32 => Self::Float(f32::from_le_bytes(cursor.array()?).into()),
            Kind::F64 => Self::Float(f64::from_le_bytes(cursor.array()?)),
            Kind::Bool => Self::Bool(cursor.array::<1>()? != [0]),
            Kind::Text => Self::Text(cursor.text()?.to_owned()),
            Kind::Array => Self::Array(Array::skip(cursor, 0)?),
        })
    }

    /// As a whole number that is not negative.
    pub fn unsigned(&self) -> Option<u64> {
        match self {
            Self::Unsigned(number) => Some(*number),
            Self::Signed(number) => u64::try_from(*number).ok(),
            _ => None,
        }
    }
}

impl Array {
    /// Reads an array's kind and length, and checks that its elements are there.
    fn skip(cursor: &mut Cursor<'_>, depth: usize) -> Result<Self, String> {
        let kind = Kind::read(cursor)?;
        let len = cursor.count("elements in an array", kind.least_bytes())?;
        let array = Self { kind, len, at: cursor.position() };
        match kind {
            Kind::Array if depth == MAX_DEPTH => {
                return Err("has arrays within arrays within arrays; it is damaged".to_owned());
            }
            Kind::Array => (0..len).try_for_each(|_| Self::skip(cursor, depth + 1).map(drop))?,
            Kind::Text => (0..len).try_for_each(|_| cursor.text().map(drop))?,
            fixed => drop(cursor.take(len * fixed.least_bytes())?),
        }
        Ok(array)
    }
}

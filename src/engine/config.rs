//! The engine's settings.
use clap::{Args, builder::FalseyValueParser};
use std::{fmt, str::FromStr};

/// How much one step holds, how many may wait, and the memory for keys and values.
#[derive(Args, Clone, Debug)]
pub struct EngineConfig {
    /// Sequences that run at the same time.
    #[arg(long, env = "LORAD_MAX_SEQUENCES", default_value_t = Self::default().max_sequences)]
    #[arg(visible_alias = "max-num-seqs", value_parser = at_least_one, value_name = "N")]
    pub max_sequences: usize,

    /// Tokens in one step, of prompts and answers together; longer prompts are computed in pieces, longer texts of
    /// encoders in one.
    #[arg(long, env = "LORAD_MAX_BATCHED_TOKENS", default_value_t = Self::default().max_batched_tokens)]
    #[arg(visible_alias = "max-num-batched-tokens", value_parser = at_least_one, value_name = "N")]
    pub max_batched_tokens: usize,

    /// Requests that may wait for a place; one more is refused as overloaded.
    #[arg(long, env = "LORAD_MAX_WAITING", default_value_t = Self::default().max_waiting)]
    #[arg(value_parser = at_least_one, value_name = "N")]
    pub max_waiting: usize,

    /// Adapters that can be in use at the same time.
    #[arg(long, env = "LORAD_ADAPTER_SLOTS", default_value_t = Self::default().adapter_slots)]
    #[arg(visible_alias = "max-loras", value_parser = at_least_one, value_name = "N")]
    pub adapter_slots: usize,

    /// Memory for adapters in use or ready to be, in bytes or with a unit; 0 lets --adapter-slots alone bound them.
    #[arg(long, env = "LORAD_ADAPTER_DEVICE_BYTES", default_value_t = Self::default().adapter_device_bytes)]
    #[arg(value_name = "SIZE")]
    pub adapter_device_bytes: ByteSize,

    /// Memory for keys and values, in bytes or with a unit: 512MiB, 4GiB.
    #[arg(long, env = "LORAD_KV_CACHE_BYTES", default_value_t = Self::default().kv_cache_bytes)]
    #[arg(value_name = "SIZE")]
    pub kv_cache_bytes: ByteSize,

    /// Tokens a block of the KV cache holds; the CPU is fastest with a multiple of 32.
    #[arg(long, env = "LORAD_BLOCK_SIZE", default_value_t = Self::default().block_size)]
    #[arg(value_parser = at_least_one, value_name = "TOKENS")]
    pub block_size: usize,

    /// Tokens guessed ahead for each sequence and step, by looking its last words up in what it has said
    /// already; 0 guesses nothing. Answers stay the same, text that repeats its prompt comes faster.
    #[arg(long, env = "LORAD_DRAFT_TOKENS", default_value_t = Self::default().draft_tokens)]
    #[arg(value_name = "N")]
    pub draft_tokens: usize,

    /// Compute every prompt from its beginning, even where the KV cache knows it.
    #[arg(long, env = "LORAD_NO_PREFIX_CACHE", visible_alias = "no-enable-prefix-caching")]
    #[arg(value_parser = FalseyValueParser::new())]
    pub no_prefix_cache: bool,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            max_sequences: 64,
            max_batched_tokens: 512,
            max_waiting: 256,
            adapter_slots: 32,
            adapter_device_bytes: ByteSize(0),
            kv_cache_bytes: ByteSize(512 << 20),
            block_size: 32,
            draft_tokens: 0,
            no_prefix_cache: false,
        }
    }
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("must be at least 1".into()),
        Ok(number) => Ok(number),
        Err(error) => Err(format!("{error}")),
    }
}

/// An amount of memory; reads and writes `KiB`, `MiB` and `GiB`.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct ByteSize(
    /// In bytes.
    pub usize,
);

/// Largest first.
const UNITS: [(&str, u32); 3] = [("GiB", 30), ("MiB", 20), ("KiB", 10)];

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let unit = UNITS.iter().find_map(|(unit, shift)| Some((text.strip_suffix(unit)?, *shift)));
        let (digits, shift) = unit.unwrap_or((text, 0));
        let wrong =
            || format!("`{text}` is not a size; write bytes, or a whole number of KiB, MiB or GiB");
        let number: usize = digits.trim().parse().map_err(|_| wrong())?;
        number.checked_mul(1 << shift).map(Self).ok_or_else(wrong)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = |(_, shift): &&(&str, u32)| self.0 > 0 && self.0.trailing_zeros() >= *shift;
        match UNITS.iter().find(whole) {
            Some((unit, shift)) => write!(f, "{}{unit}", self.0 >> shift),
            None => write!(f, "{}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        engine: EngineConfig,
    }

    #[test]
    fn sizes_are_read_as_they_are_written() {
        for text in ["512MiB", "4GiB", "1025KiB", "1000", "0"] {
            assert_eq!(text.parse::<ByteSize>().expect("a size").to_string(), text);
        }
        for text in ["", "MiB", "1.5GiB", "-1", "1 MB", "99999999999GiB"] {
            assert!(text.parse::<ByteSize>().is_err(), "{text}");
        }
    }

    #[test]
    fn flags_are_checked_where_they_are_read() {
        let line =
            ["lorad", "--max-sequences", "3", "--kv-cache-bytes", "1GiB", "--no-prefix-cache"];
        let engine = Line::try_parse_from(line).expect("valid").engine;
        assert_eq!((engine.max_sequences, engine.kv_cache_bytes), (3, ByteSize(1 << 30)));
        assert!(engine.no_prefix_cache);
        assert!(Line::try_parse_from(["lorad", "--block-size", "0"]).is_err());
    }
}

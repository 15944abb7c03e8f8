//! Every operation in plain candle: whatever device candle has, these kernels run on.
//!
//! Knows candle tensors. Knows no device by name; what a device does best is its own kernels' business.
mod attention;
mod embedding;
mod lora;
mod norm;
mod ops;

pub use ops::CandleOps;

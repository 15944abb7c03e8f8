//! What a precision costs in quality: a fixed text, read by the model in f32 and in each precision.
mod args;
mod divergence;
mod reader;
mod report;

pub use args::QualityArgs;

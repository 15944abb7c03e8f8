//! Measuring: servers under load, this machine's peaks, what a precision costs in quality.
//!
//! Knows the OpenAI protocol as a client speaks it, the kernels and the model. Knows nothing of our own server:
//! what is measured over HTTP could be anyone's.
mod adapters;
mod error;
mod load;
mod machine;
mod output;
mod precision;
mod quality;

pub use adapters::AdaptersArgs;
pub use error::BenchError;
pub use load::LoadArgs;
pub use machine::MachineArgs;
pub use quality::QualityArgs;

//! This machine's limits, and how near the products of a model come to them.
mod args;
mod products;
mod report;
mod shapes;

pub use args::MachineArgs;

//! Every operation as plain loops with f64 sums: never fast, the oracle of every other implementation.
mod deltas;
mod operations;
#[cfg(test)]
mod tests;

pub use operations::Reference;

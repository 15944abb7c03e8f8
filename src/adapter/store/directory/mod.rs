//! Objects in a directory.
//!
//! Knows files, links, locks and crashes. Knows not what the objects are for.
mod incoming;
mod log;
mod objects;
#[cfg(test)]
mod tests;
mod turn;
mod walk;

pub use objects::DirectoryObjects;

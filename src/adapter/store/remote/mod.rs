//! Objects behind a URL: S3, Google Cloud Storage, Azure Blob Storage and what speaks like them, and web servers.
//!
//! Knows URLs, credentials of the environment and networks that fail. Knows not what the objects are for.
mod connect;
mod explain;
#[cfg(test)]
mod fake_s3;
#[cfg(test)]
mod fake_web;
mod lines;
mod listing;
mod objects;
mod read;
#[cfg(test)]
mod tests;
mod write;

pub use objects::RemoteObjects;

//! Who may do what: keys, callers, and the guard of every route.
//!
//! Knows keys as hashes, and peers. Knows no adapter beyond the terms that name keys.
mod caller;
mod guard;
mod key_file;
mod keys;

pub(super) use caller::Caller;
pub use guard::Access;
pub(super) use guard::guard;
pub use key_file::KeyFile;
pub use keys::Keys;

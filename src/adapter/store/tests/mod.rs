//! What every kind of store must do, tried on each.
mod suite;

pub(super) use suite::{check, race};

//! The API for machines: an `OpenAPI` document made of the table of routes, and a page to browse it.
mod answers;
mod bodies;
mod document;
mod page;
mod reading_answers;
mod reading_bodies;

pub(super) use document::document;
pub(super) use page::{file, page};

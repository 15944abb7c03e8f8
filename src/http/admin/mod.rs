//! Everything under `/admin`: what operators change while the server serves.
mod aliases;
mod change;
mod conditions;
mod files;
mod list;
mod probe;
mod publish;
mod query;
mod reference;
mod report;

pub(super) use aliases::{
    delete as delete_alias, get as get_alias, list as list_aliases, put as put_alias,
    roll_back as roll_back_alias,
};
pub(super) use change::{retire, roll_back, set_terms};
pub(super) use files::files;
pub(super) use list::{get, list};
pub(super) use publish::publish;
pub(super) use reference::is_allowed;

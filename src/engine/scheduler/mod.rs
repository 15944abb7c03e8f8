//! Who runs next. Pure bookkeeping: no tensors, no clocks, no channels but the sequences' own.
//!
//! At each step tokens are granted to sequences so that what is computed catches up with what is known; there are no
//! phases. `grant` plans for those that run, `start` brings waiting ones in, `bring`
//! their adapters, `commit` books what came of it.
mod bring;
#[cfg(test)]
mod bring_tests;
mod commit;
mod grant;
mod plan;
#[cfg(test)]
mod prompt_tests;
mod start;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod turns_tests;
#[cfg(test)]
mod whole_tests;

pub(super) use plan::Scheduler;

//! Every row's next token, on as many threads as the kernels have.
use super::{
    sampler::{Draw, NoChoice, Sampler},
    schedule::Chosen,
};
use crate::kernel::{Kernels, Result};
use std::{
    mem::replace,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// A sampler for each thread, and what they found for each row.
#[derive(Debug, Default)]
pub(super) struct Samplers {
    idle: Mutex<Vec<Sampler>>,
    best: Vec<Option<u32>>,
    choices: Vec<Mutex<Chosen>>,
}

impl Samplers {
    /// The choices of all rows of `logits`, `[rows, vocab]`; `draw` makes a row's draw of its number, its
    /// logits and the most likely token.
    ///
    /// # Errors
    /// When `logits` is no whole number of rows.
    pub(super) fn sample<'a>(
        &mut self,
        kernels: &dyn Kernels,
        (logits, vocab): (&'a [f32], usize),
        draw: &(dyn Fn(usize, &'a [f32], Option<u32>) -> Draw<'a> + Sync),
    ) -> Result<impl Iterator<Item = Chosen>> {
        let Self { idle, best, choices } = self;
        kernels.highest(logits, vocab, best)?;
        choices.resize_with(best.len(), || Mutex::new(Err(NoChoice::NothingLeft)));
        kernels.for_each(best.len(), &|row| {
            let draw = draw(row, &logits[row * vocab..][..vocab], best[row]);
            let mut sampler = lock(idle).pop().unwrap_or_default();
            *lock(&choices[row]) = sampler.sample(&draw);
            lock(idle).push(sampler);
        });
        Ok(choices.iter().map(|choice| replace(&mut *lock(choice), Err(NoChoice::NothingLeft))))
    }
}

/// Whole values, put there in one go: good though a thread panicked meanwhile.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

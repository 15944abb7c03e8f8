//! What the registry does by itself while a server runs.
use super::AdapterRegistry;
use crate::adapter::AdapterError;
use std::time::{Duration, Instant};

/// What nobody names is looked for so often.
const COLLECTION: Duration = Duration::from_hours(1);
/// Between two looks passes so many times the time that a look takes: a store that answers slowly is asked less often.
const REST: u32 = 10;

impl AdapterRegistry {
    /// For ever: looks after what others write to the store, `every` so often, and after what nobody names any more. With
    /// no time between the looks it only reads what is pinned. Never fails: what goes wrong is logged, and tried again.
    pub async fn keep_up(self, every: Duration) {
        self.warm_pinned().await;
        let (mut collected, mut pause) = (Instant::now(), every);
        let mut failing = false;
        while !every.is_zero() {
            tokio::time::sleep(pause).await;
            let begun = Instant::now();
            let is_due = collected.elapsed() >= COLLECTION;
            let registry = self.clone();
            let looked = tokio::task::spawn_blocking(move || registry.look(is_due)).await;
            if is_due {
                collected = Instant::now();
            }
            pause = every.max(begun.elapsed() * REST);
            match looked {
                Ok(Err(error)) if !std::mem::replace(&mut failing, true) => {
                    tracing::warn!(%error, "could not look after the store of adapters; trying again");
                }
                Ok(Ok(())) => failing = false,
                _ => {}
            }
        }
    }

    fn look(&self, collect: bool) -> Result<(), AdapterError> {
        for name in self.refresh()?.loaded {
            tracing::info!(adapter = %name, "an adapter was changed by others in the store");
        }
        if collect {
            self.collect()?;
        }
        Ok(())
    }
}

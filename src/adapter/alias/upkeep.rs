//! Following what other servers write.
use super::Aliases;
use std::time::Duration;

impl Aliases {
    /// Looks into the store every so often, for as long as it is polled; never, where `every` is nothing.
    pub async fn keep_up(self, every: Duration) {
        let mut failing = false;
        while !every.is_zero() {
            tokio::time::sleep(every).await;
            let aliases = self.clone();
            match tokio::task::spawn_blocking(move || aliases.refresh()).await {
                Ok(Err(error)) if !std::mem::replace(&mut failing, true) => {
                    tracing::warn!(%error, "could not look after the stored aliases; trying again");
                }
                Ok(Ok(())) => failing = false,
                _ => {}
            }
        }
    }
}

//! A place in the queue, counted so that the queue is bounded.
use super::EngineError;
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

/// Hands out at most so many tickets at a time. Clones count together.
#[derive(Clone, Debug)]
pub(super) struct TicketOffice {
    taken: Arc<AtomicUsize>,
    tickets: usize,
}

/// One place; dropping it gives it back.
#[derive(Debug)]
pub(super) struct Ticket(Arc<AtomicUsize>);

impl TicketOffice {
    /// With `tickets` places.
    pub(super) fn new(tickets: usize) -> Self {
        Self { taken: Arc::default(), tickets }
    }

    /// Never waits.
    ///
    /// # Errors
    /// [`EngineError::Overloaded`] when every place is taken.
    pub(super) fn take(&self) -> Result<Ticket, EngineError> {
        let free = |taken: usize| (taken < self.tickets).then_some(taken + 1);
        match self.taken.fetch_update(Relaxed, Relaxed, free) {
            Ok(_) => Ok(Ticket(self.taken.clone())),
            Err(waiting) => Err(EngineError::Overloaded { waiting }),
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_returned_ticket_can_be_taken_again() {
        let office = TicketOffice::new(2);
        let first = office.take().expect("free");
        let second = office.clone().take().expect("free");
        assert_eq!(office.take().expect_err("none left"), EngineError::Overloaded { waiting: 2 });
        drop(first);
        assert!(office.take().is_ok());
        drop(second);
    }
}

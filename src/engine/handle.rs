//! The engine as the async world sees it.
use super::{
    EngineConfig, EngineError, EngineSnapshot, EventStream, Submission,
    core::{Board, EngineCore, Pulse},
    inbox::Inbox,
    loader::Loader,
    offer::Offer,
    protocol::Command,
    runner::ModelRunner,
    schedule::Schedule,
    scheduler::Scheduler,
    sequence::Arrival,
    ticket::TicketOffice,
};
use crate::adapter::{AdapterName, VersionId};
use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};
use tokio::sync::mpsc;

/// Cheap to clone. When the last one drops, the thread finishes its work and ends.
#[derive(Clone, Debug)]
pub struct EngineHandle {
    commands: Arc<Commands>,
    tickets: TicketOffice,
    board: Board,
    pulse: Pulse,
    draining: Arc<AtomicBool>,
    offer: Arc<Offer>,
    vocab_size: usize,
    max_positions: usize,
    kv_tokens: usize,
    adapter_slots: usize,
}

/// The handles' end of the channel. The loader has one too, so the thread is told when the last handle goes.
#[derive(Debug)]
struct Commands(mpsc::UnboundedSender<Command>);

impl Drop for Commands {
    fn drop(&mut self) {
        let _ = self.0.send(Command::Drain);
    }
}

impl EngineHandle {
    /// Starts the thread; `eos` are the tokens that end an answer.
    ///
    /// # Errors
    /// When the OS refuses a thread.
    pub fn spawn(runner: ModelRunner, config: &EngineConfig, eos: Vec<u32>) -> io::Result<Self> {
        let limits = runner.limits(config);
        let (commands, inbox) = mpsc::unbounded_channel();
        let loader = Loader::new(runner.workshop(), commands.clone())?;
        let handle = Self {
            commands: Arc::new(Commands(commands)),
            tickets: TicketOffice::new(config.max_waiting),
            board: Board::default(),
            pulse: Pulse::default(),
            draining: Arc::default(),
            offer: Arc::new(runner.offer()),
            vocab_size: runner.vocab_size(),
            max_positions: limits.max_positions,
            kv_tokens: limits.kv_blocks * limits.block_size,
            adapter_slots: limits.adapter_slots,
        };
        let scheduler = Scheduler::new(limits, eos, runner.workshop().form);
        let (board, pulse) = (handle.board.clone(), handle.pulse.clone());
        let schedule = Schedule::default();
        let inbox = Inbox::new(inbox);
        let mut core =
            EngineCore { inbox, scheduler, runner, loader, schedule, board, pulse, ending: false };
        core.publish();
        thread::Builder::new().name("engine".into()).spawn(move || {
            // Whatever a panic left behind is only told to end: nobody may wait for a dead thread.
            if catch_unwind(AssertUnwindSafe(|| core.run())).is_err() {
                tracing::error!("the engine has panicked; every request fails from here on");
            }
            core.close();
        })?;
        Ok(handle)
    }

    /// Never waits: a full queue is an answer.
    ///
    /// # Errors
    /// [`EngineError::InvalidPrompt`], [`EngineError::TooLong`], [`EngineError::TooManyAdapters`] and
    /// [`EngineError::NotOffered`] for what can never run, [`EngineError::Overloaded`] while the queue is full, [`EngineError::Stopped`] at the end.
    pub fn submit(&self, submission: Submission) -> Result<EventStream, EngineError> {
        if self.draining.load(Relaxed) || !self.is_alive() {
            return Err(EngineError::Stopped);
        }
        self.check(&submission)?;
        let ticket = self.tickets.take()?;
        // Unbounded, yet bounded: a sequence sends at most max_tokens + 2 events, and one a piece of its prompt.
        let (events, stream) = mpsc::unbounded_channel();
        let arrival = Arrival { submission, events, ticket, at: Instant::now() };
        self.commands.0.send(Command::Submit(arrival)).map_err(|_| EngineError::Stopped)?;
        Ok(stream)
    }

    fn check(&self, submission: &Submission) -> Result<(), EngineError> {
        let Submission { prompt, adapters, sampling, .. } = submission;
        let (length, context) = (prompt.len(), self.max_positions);
        if length == 0 {
            return Err(EngineError::InvalidPrompt("the prompt has no tokens".into()));
        }
        if length > context {
            let text = format!("the prompt has {length} tokens, the model's context {context}");
            return Err(EngineError::InvalidPrompt(text));
        }
        if let Some(token) = prompt.iter().find(|token| **token as usize >= self.vocab_size) {
            let text = format!("token {token} is not below the vocabulary's {}", self.vocab_size);
            return Err(EngineError::InvalidPrompt(text));
        }
        let (adapters, most) = (adapters.parts().len(), self.adapter_slots);
        if adapters > most {
            return Err(EngineError::TooManyAdapters { adapters, most });
        }
        self.offer.check(submission)?;
        // The last token is sent, but never computed.
        let needed =
            length.saturating_add(sampling.options().max_tokens.saturating_sub(1)).min(context);
        if needed > self.kv_tokens {
            return Err(EngineError::TooLong { needed, available: self.kv_tokens });
        }
        Ok(())
    }

    /// An adapter version was retired: its slot is emptied as soon as no sequence uses it.
    pub fn forget(&self, version: VersionId) {
        // A thread that has ended has forgotten already.
        let _ = self.commands.0.send(Command::Forget(version));
    }

    /// Requests that use a version under this name fail with [`EngineError::AdapterReplaced`]: those of now at once, or those
    /// that are still there at `at`.
    pub fn end(&self, name: AdapterName, version: VersionId, at: Option<Instant>) {
        // A thread that has ended has failed them already.
        let _ = self.commands.0.send(Command::End(name, version, at));
    }

    /// Refuses what comes from here on; the thread finishes what it has accepted and ends.
    pub fn drain(&self) {
        self.draining.store(true, Relaxed);
        let _ = self.commands.0.send(Command::Drain);
    }

    /// Until the thread has ended, after [`EngineHandle::drain`] or a panic.
    pub async fn ended(&self) {
        self.commands.0.closed().await;
    }

    /// Whether the thread still runs.
    pub fn is_alive(&self) -> bool {
        !self.commands.0.is_closed()
    }

    /// What it was doing after the latest step.
    pub fn snapshot(&self) -> EngineSnapshot {
        self.board.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How long its present step has taken so far; nothing while it waits for work.
    pub fn step_time(&self) -> Duration {
        let since = *self.pulse.read().unwrap_or_else(PoisonError::into_inner);
        since.map(|since| since.elapsed()).unwrap_or_default()
    }

    /// Tokens of prompt and answer that the longest request may have.
    pub fn max_sequence_tokens(&self) -> usize {
        self.max_positions.min(self.kv_tokens)
    }
}

//! The loop: take commands, schedule, run, deliver.
use super::{
    EngineError, EngineSnapshot, protocol::Command, runner::ModelRunner, schedule::Schedule,
    scheduler::Scheduler,
};
use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Instant,
};
use tokio::sync::mpsc::{UnboundedReceiver, error::TryRecvError};

/// The latest snapshot, for whoever asks.
pub(super) type Board = Arc<RwLock<EngineSnapshot>>;

/// What the engine thread owns.
pub(super) struct EngineCore {
    pub(super) inbox: UnboundedReceiver<Command>,
    pub(super) scheduler: Scheduler,
    pub(super) runner: ModelRunner,
    /// The step's plan; its memory stays.
    pub(super) schedule: Schedule,
    pub(super) board: Board,
    /// No handle is left, or somebody asked for the end: finish what was accepted.
    pub(super) ending: bool,
}

impl EngineCore {
    /// Until every handle is gone, or the engine is drained, and every sequence is done.
    pub(super) fn run(&mut self) {
        loop {
            self.take_commands();
            self.step();
            if self.ending && self.scheduler.is_idle() {
                return;
            }
        }
    }

    /// Waits only when there is nothing else to do.
    fn take_commands(&mut self) {
        if self.scheduler.is_idle() && !self.ending {
            match self.inbox.blocking_recv() {
                Some(command) => self.accept(command),
                None => self.ending = true,
            }
        }
        loop {
            match self.inbox.try_recv() {
                Ok(command) => self.accept(command),
                Err(TryRecvError::Empty) => return,
                Err(TryRecvError::Disconnected) => {
                    self.ending = true;
                    return;
                }
            }
        }
    }

    fn accept(&mut self, command: Command) {
        match command {
            Command::Submit(arrival) => self.scheduler.add(arrival),
            Command::Forget(version) => self.scheduler.forget(version),
            Command::End(version, at) => self.scheduler.end(version, at),
            Command::Drain => self.ending = true,
        }
    }

    fn step(&mut self) {
        self.scheduler.schedule(&mut self.schedule, Instant::now());
        self.move_adapters();
        let Schedule { work, choices, .. } = &mut self.schedule;
        if !work.is_empty() {
            match self.runner.run(work, self.scheduler.running(), choices) {
                Ok(()) => self.scheduler.commit(work, choices.drain(..)),
                Err(error) => {
                    tracing::error!(%error, sequences = work.len(), "a step failed");
                    self.scheduler.fail_step(work);
                }
            }
        }
        self.publish();
    }

    fn move_adapters(&mut self) {
        for slot in std::mem::take(&mut self.schedule.clears) {
            self.runner.clear(slot);
        }
        for (slot, lease) in std::mem::take(&mut self.schedule.loads) {
            if let Err(error) = self.runner.load(slot, &lease) {
                tracing::error!(%error, adapter = %lease.name, "an adapter could not be loaded");
                self.scheduler.fail_slot(slot, &mut self.schedule);
            }
        }
    }

    /// Puts up what is going on.
    pub(super) fn publish(&self) {
        let mut snapshot = self.board.write().unwrap_or_else(PoisonError::into_inner);
        self.scheduler.report(&mut snapshot);
        snapshot.kv_bytes = self.runner.kv_bytes();
    }

    /// Refuses what is still in the inbox and ends what still runs.
    pub(super) fn close(&mut self) {
        self.inbox.close();
        while let Ok(command) = self.inbox.try_recv() {
            self.accept(command);
        }
        self.scheduler.fail_all(&EngineError::Stopped);
        self.publish();
    }
}

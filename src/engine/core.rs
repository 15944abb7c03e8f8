//! The loop: take commands, schedule, run, deliver.
use super::{
    EngineError, EngineSnapshot,
    inbox::{Closed, Inbox},
    loader::{Loaded, Loader},
    protocol::Command,
    runner::ModelRunner,
    schedule::Schedule,
    scheduler::Scheduler,
};
use std::{
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, Instant},
};

/// How often an engine that only waits for adapters looks whether their callers have gone.
const WHILE_LOADING: Duration = Duration::from_millis(20);

/// The latest snapshot, for whoever asks.
pub(super) type Board = Arc<RwLock<EngineSnapshot>>;

/// Since when the present step runs, while one does.
pub(super) type Pulse = Arc<RwLock<Option<Instant>>>;

/// What the engine thread owns.
pub(super) struct EngineCore {
    pub(super) inbox: Inbox,
    pub(super) scheduler: Scheduler,
    pub(super) runner: ModelRunner,
    pub(super) loader: Loader,
    /// The step's plan; its memory stays.
    pub(super) schedule: Schedule,
    pub(super) board: Board,
    pub(super) pulse: Pulse,
    /// No handle is left, or somebody asked for the end: finish what was accepted.
    pub(super) ending: bool,
}

impl EngineCore {
    /// Until every handle is gone, or the engine is drained, and every sequence is done.
    pub(super) fn run(&mut self) {
        loop {
            self.take_commands();
            self.beat(Some(Instant::now()));
            self.step();
            self.beat(None);
            if self.ending && self.scheduler.is_idle() {
                return;
            }
        }
    }

    fn beat(&self, since: Option<Instant>) {
        *self.pulse.write().unwrap_or_else(PoisonError::into_inner) = since;
    }

    /// Waits only when there is nothing else to do.
    fn take_commands(&mut self) {
        let mut next = if self.loader.has_work() {
            self.inbox.take()
        } else if self.scheduler.is_idle() && !self.ending {
            self.inbox.wait(None)
        } else if self.schedule.work.is_empty() && self.scheduler.awaits_adapters() {
            let look = Instant::now() + WHILE_LOADING;
            let end = self.scheduler.next_end();
            self.inbox.wait(Some(end.map_or(look, |end| end.min(look))))
        } else {
            self.inbox.take()
        };
        while let Ok(Some(command)) = next {
            self.accept(command);
            next = self.inbox.take();
        }
        if next.is_err_and(|Closed| true) {
            self.ending = true;
        }
    }

    fn accept(&mut self, command: Command) {
        match command {
            Command::Submit(arrival) => self.scheduler.add(arrival),
            Command::Forget(version) => self.scheduler.forget(version),
            Command::End(name, version, at) => self.scheduler.end(name, version, at),
            Command::Loaded(loaded) => self.settle(loaded),
            Command::Drain => self.ending = true,
        }
    }

    fn step(&mut self) {
        self.scheduler.schedule(&mut self.schedule, Instant::now());
        self.move_adapters();
        if self.scheduler.reads_whole() && !self.schedule.work.is_empty() {
            // Nobody is in two steps: between them there would be nothing to see.
            self.publish();
        }
        let Schedule { work, choices, outputs, .. } = &mut self.schedule;
        if !work.is_empty() {
            match self.runner.run(work, self.scheduler.running(), (&mut *choices, &mut *outputs)) {
                Ok(()) => self.scheduler.commit(work, choices.drain(..), outputs.drain(..)),
                Err(error) => {
                    tracing::error!(%error, sequences = work.len(), "a step failed");
                    self.scheduler.fail_step(work);
                }
            }
        }
        self.publish();
    }

    fn move_adapters(&mut self) {
        for slot in self.schedule.clears.drain(..) {
            self.runner.clear(slot);
        }
        for load in std::mem::take(&mut self.schedule.loads) {
            if let Some(failed) = self.loader.order(load) {
                self.settle(failed);
            }
        }
        if let Some(loaded) = self.loader.work() {
            self.settle(loaded);
        }
    }

    /// What was on its way is there, from the next step on, or never comes.
    fn settle(&mut self, Loaded { slot, result, took }: Loaded) {
        match result {
            Ok(adapter) => {
                self.scheduler.loaded(slot, adapter.bytes(), took);
                self.runner.put(slot, adapter);
            }
            Err(error) => {
                tracing::error!(%error, "an adapter could not be brought to the device");
                self.scheduler.load_failed(slot);
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
        while let Ok(Some(command)) = self.inbox.take() {
            // After a panic the slots may be half full; adapters that come now go nowhere.
            if !matches!(command, Command::Loaded(_)) {
                self.accept(command);
            }
        }
        self.scheduler.fail_all(&EngineError::Stopped);
        self.publish();
    }
}

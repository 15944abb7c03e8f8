//! Prepares adapters for their slots beside the engine thread, so that no step waits for one.
use super::{protocol::Command, residency::Load};
use crate::{
    kernel::{KernelError, Kernels, Result},
    lora::{AdapterSlot, PreparedAdapter, ResidentForm},
};
use std::{
    any::Any,
    collections::VecDeque,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};
use tokio::sync::mpsc::UnboundedSender;

/// What came of a load.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) slot: AdapterSlot,
    pub(super) result: Result<PreparedAdapter>,
    pub(super) took: Duration,
}

/// Where loads happen.
pub(super) enum Loader {
    /// On a thread of their own, which ends when this is dropped and answers through the engine's commands.
    Beside(mpsc::Sender<Load>),
    /// On the engine thread, because the device wants one thread for all: one between two steps.
    Between { due: VecDeque<Load>, workshop: Workshop },
}

/// What it takes to prepare an adapter.
#[derive(Clone)]
pub(super) struct Workshop {
    pub(super) form: ResidentForm,
    pub(super) kernels: Arc<dyn Kernels>,
}

impl Loader {
    /// Beside the engine thread where the device allows it.
    ///
    /// # Errors
    /// When the OS refuses a thread.
    pub(super) fn new(workshop: Workshop, answers: UnboundedSender<Command>) -> io::Result<Self> {
        if !workshop.kernels.loads_on_any_thread() {
            return Ok(Self::Between { due: VecDeque::new(), workshop });
        }
        let (orders, inbox) = mpsc::channel();
        thread::Builder::new().name("loader".into()).spawn(move || {
            for load in inbox {
                // An engine that has ended needs no adapters.
                let _ = answers.send(Command::Loaded(workshop.load(load)));
            }
        })?;
        Ok(Self::Beside(orders))
    }

    /// Never waits. What cannot be ordered has failed at once.
    pub(super) fn order(&mut self, load: Load) -> Option<Loaded> {
        match self {
            Self::Between { due, .. } => {
                due.push_back(load);
                None
            }
            Self::Beside(orders) => {
                let mpsc::SendError(load) = orders.send(load).err()?;
                Some(failed(load.slot, "the loader has ended"))
            }
        }
    }

    /// Does one load that is due on this thread.
    pub(super) fn work(&mut self) -> Option<Loaded> {
        match self {
            Self::Beside(_) => None,
            Self::Between { due, workshop } => Some(workshop.load(due.pop_front()?)),
        }
    }

    /// Whether the engine thread itself has something to load.
    pub(super) fn has_work(&self) -> bool {
        matches!(self, Self::Between { due, .. } if !due.is_empty())
    }
}

impl Workshop {
    fn load(&self, load: Load) -> Loaded {
        let Load { slot, lease } = load;
        let begun = Instant::now();
        let prepare = || self.form.prepare(&lease.weights, self.kernels.as_ref());
        match catch_unwind(AssertUnwindSafe(prepare)) {
            Ok(result) => Loaded { slot, result, took: begun.elapsed() },
            Err(panic) => failed(slot, &format!("the load panicked: {}", text(panic.as_ref()))),
        }
    }
}

fn failed(slot: AdapterSlot, why: &str) -> Loaded {
    Loaded { slot, result: Err(KernelError::Unsupported(why.into())), took: Duration::ZERO }
}

fn text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message")
}

//! The engine thread's end of its command channel, with waits that end by themselves.
use super::protocol::Command;
use std::{
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    thread::{Thread, current, park, park_timeout},
    time::Instant,
};
use tokio::sync::mpsc::{UnboundedReceiver, error::TryRecvError};

/// What handles and the loader send.
pub(super) struct Inbox {
    commands: UnboundedReceiver<Command>,
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

impl Inbox {
    pub(super) fn new(commands: UnboundedReceiver<Command>) -> Self {
        Self { commands }
    }

    /// The next command, if it comes before `deadline`; `Err` when nobody is left who could send one.
    pub(super) fn wait(&mut self, deadline: Option<Instant>) -> Result<Option<Command>, Closed> {
        let waker = Waker::from(Arc::new(Unpark(current())));
        let mut context = Context::from_waker(&waker);
        loop {
            if let Poll::Ready(command) = self.commands.poll_recv(&mut context) {
                return command.map(Some).ok_or(Closed);
            }
            let Some(deadline) = deadline else {
                park();
                continue;
            };
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            park_timeout(left);
        }
    }

    /// The next command that is there already.
    pub(super) fn take(&mut self) -> Result<Option<Command>, Closed> {
        match self.commands.try_recv() {
            Ok(command) => Ok(Some(command)),
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => Err(Closed),
        }
    }

    /// From here on nothing can be sent; what was sent can still be taken.
    pub(super) fn close(&mut self) {
        self.commands.close();
    }
}

/// Nobody is left who could send.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Closed;

#[cfg(test)]
mod tests {
    use super::*;
    use std::{thread, time::Duration};
    use tokio::sync::mpsc;

    #[test]
    fn a_wait_ends_with_a_command_a_deadline_or_the_last_sender() {
        let (sender, receiver) = mpsc::unbounded_channel();
        let mut inbox = Inbox::new(receiver);
        let soon = Instant::now() + Duration::from_millis(20);
        assert!(matches!(inbox.wait(Some(soon)), Ok(None)));
        assert!(Instant::now() >= soon);
        assert!(matches!(inbox.take(), Ok(None)));
        let other = thread::spawn(move || sender.send(Command::Drain).expect("it is waited for"));
        assert!(matches!(inbox.wait(None), Ok(Some(Command::Drain))));
        other.join().expect("sent");
        assert_eq!(inbox.wait(None).err(), Some(Closed));
    }
}

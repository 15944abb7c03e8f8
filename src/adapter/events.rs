//! Who did what: an append-only log, kept where the adapters are.
use super::{Objects, VersionId};
use serde::{Deserialize, Serialize};
use std::{
    collections::VecDeque,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{Receiver, Sender, channel},
    },
    thread::{Builder, JoinHandle},
    time::{SystemTime, UNIX_EPOCH},
};

/// Where the log lies in a store.
const PATH: &str = ".lorad/events";
/// Events that are kept in memory where no store keeps them.
const REMEMBERED: usize = 1000;
/// Lines of a stored log that are looked through.
const SEARCHED: usize = 10_000;

/// One thing that somebody did.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub struct Event {
    /// Seconds since 1970, to the millisecond.
    pub at: f64,
    /// The beginning of an admin key's hash, `loopback`, `start`, `watch` or `guard`; never a key.
    pub actor: String,
    /// `publish`, `replace`, `roll_back`, `retire`, `terms`, `refuse`, `alias`, …
    pub action: String,
    /// Which adapter or alias.
    pub name: String,
    /// What it means now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// What it meant before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous: Option<String>,
    /// What else there is to say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

impl Event {
    /// `actor` did `action` with `name`, now.
    pub fn now(actor: &str, action: &str, name: impl fmt::Display) -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let at = since.as_millis() as f64 / 1e3;
        let (actor, action, name) = (actor.to_owned(), action.to_owned(), name.to_string());
        Self { at, actor, action, name, ..Self::default() }
    }

    /// What the name means now, and what it meant.
    #[must_use]
    pub fn meaning(self, version: Option<VersionId>, previous: Option<VersionId>) -> Self {
        let text = |version: Option<VersionId>| version.map(|version| version.to_string());
        Self { version: text(version), previous: text(previous), ..self }
    }

    /// What else there is to say.
    #[must_use]
    pub fn saying(self, detail: impl Into<String>) -> Self {
        Self { detail: Some(detail.into()), ..self }
    }
}

/// The log. Clones are handles to the same one; the last one to go waits until everything is written.
#[derive(Clone)]
pub struct EventLog(Arc<Inner>);

struct Inner {
    /// The newest last.
    ring: Mutex<VecDeque<Event>>,
    writer: Option<Writer>,
}

/// A thread of its own: whoever has something to say waits for no store.
struct Writer {
    objects: Arc<dyn Objects>,
    orders: Mutex<Sender<Order>>,
    thread: Option<JoinHandle<()>>,
}

enum Order {
    Write(String),
    /// Answers when everything before it is written.
    Settle(Sender<()>),
}

impl EventLog {
    /// A log that lives as long as the process and remembers its last thousand events.
    pub fn in_memory() -> Self {
        Self(Arc::new(Inner { ring: Mutex::default(), writer: None }))
    }

    /// A log that `objects` keep; where they cannot be written, or a thread cannot be had, one in memory.
    pub fn kept_in(objects: Arc<dyn Objects>) -> Self {
        if !objects.is_writable() {
            return Self::in_memory();
        }
        let (orders, received) = channel();
        let store = Arc::clone(&objects);
        let thread = Builder::new().name("lorad-events".into());
        match thread.spawn(move || write(store.as_ref(), &received)) {
            Ok(thread) => {
                let writer = Writer { objects, orders: Mutex::new(orders), thread: Some(thread) };
                Self(Arc::new(Inner { ring: Mutex::default(), writer: Some(writer) }))
            }
            Err(error) => {
                tracing::warn!(%error, "the event log is kept in memory only");
                Self::in_memory()
            }
        }
    }

    /// Adds an event. Never blocks and never fails: what a store refuses is remembered and stands in the server's log.
    pub fn record(&self, event: Event) {
        if let Some(writer) = &self.0.writer
            && let Ok(line) = serde_json::to_string(&event)
        {
            writer.order(Order::Write(line));
        }
        let mut ring = self.0.ring();
        if ring.len() == REMEMBERED {
            ring.pop_front();
        }
        ring.push_back(event);
    }

    /// The last `limit` events, of `name` where one is given, the newest first. Blocks.
    pub fn recent(&self, limit: usize, name: Option<&str>) -> Vec<Event> {
        let wanted = |event: &Event| name.is_none_or(|name| event.name == name);
        match self.0.writer.as_ref().and_then(|writer| writer.read(limit, name.is_some())) {
            Some(stored) => stored.into_iter().rev().filter(wanted).take(limit).collect(),
            None => self.0.ring().iter().rev().filter(|e| wanted(e)).take(limit).cloned().collect(),
        }
    }
}

impl Inner {
    fn ring(&self) -> MutexGuard<'_, VecDeque<Event>> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Writer {
    fn order(&self, order: Order) -> bool {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner).send(order).is_ok()
    }

    /// The end of the stored log, other servers' lines too; `None` where it cannot be read.
    fn read(&self, limit: usize, searching: bool) -> Option<Vec<Event>> {
        let (settled, settling) = channel();
        if self.order(Order::Settle(settled)) {
            // Without an answer the writer is gone, and there is nothing to wait for.
            let _gone = settling.recv();
        }
        let count = if searching { SEARCHED } else { limit };
        match self.objects.tail(PATH, count) {
            // A line that is cut short, or a later version's, is left out.
            Ok(lines) => Some(lines.iter().filter_map(|l| serde_json::from_str(l).ok()).collect()),
            Err(error) => {
                tracing::warn!(%error, "the event log cannot be read; what is remembered is shown");
                None
            }
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let Some(Writer { orders, thread, .. }) = self.writer.take() else { return };
        drop(orders);
        if let Some(thread) = thread {
            // A panic there is in the log already.
            let _ended = thread.join();
        }
    }
}

fn write(objects: &dyn Objects, orders: &Receiver<Order>) {
    while let Ok(order) = orders.recv() {
        match order {
            Order::Write(line) => {
                if let Err(error) = objects.append(PATH, &line) {
                    tracing::warn!(%error, line, "an event could not be stored");
                }
            }
            Order::Settle(settled) => {
                // Whoever asked may have left.
                let _left = settled.send(());
            }
        }
    }
}

impl fmt::Debug for EventLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventLog").field("kept", &self.0.writer.is_some()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapter::MemoryObjects;

    fn event(name: &str, action: &str) -> Event {
        Event::now("loopback", action, name)
    }

    fn actions(events: &[Event]) -> Vec<&str> {
        events.iter().map(|event| event.action.as_str()).collect()
    }

    #[test]
    fn the_newest_comes_first_and_a_name_has_its_own() {
        let objects: Arc<dyn Objects> = Arc::new(MemoryObjects::default());
        for log in [EventLog::in_memory(), EventLog::kept_in(objects)] {
            log.record(event("a", "publish").meaning(Some(VersionId([7; 32])), None));
            log.record(event("b", "publish"));
            log.record(event("a", "retire").saying("why"));
            assert_eq!(actions(&log.recent(9, None)), ["retire", "publish", "publish"]);
            assert_eq!(actions(&log.recent(1, None)), ["retire"]);
            let of_a = log.recent(9, Some("a"));
            assert_eq!(actions(&of_a), ["retire", "publish"]);
            assert_eq!(
                (of_a[0].detail.as_deref(), of_a[1].version.as_deref()),
                (Some("why"), Some("07".repeat(32).as_str()))
            );
            assert!(of_a[1].previous.is_none() && of_a[1].at > 1.7e9);
        }
    }

    #[test]
    fn a_stored_log_outlives_the_server_and_is_never_cut() {
        let objects: Arc<dyn Objects> = Arc::new(MemoryObjects::default());
        let log = EventLog::kept_in(Arc::clone(&objects));
        for _ in 0..=REMEMBERED {
            log.record(event("a", "publish"));
        }
        drop(log);
        objects.append(PATH, "{\"at\": 1, \"act").expect("a broken line");
        let log = EventLog::kept_in(objects);
        log.record(event("a", "retire"));
        let events = log.recent(SEARCHED, None);
        assert_eq!(events.len(), REMEMBERED + 2);
        assert_eq!(actions(&events)[..2], ["retire", "publish"]);
    }

    #[test]
    fn a_log_in_memory_remembers_so_much_and_no_more() {
        let log = EventLog::in_memory();
        for _ in 0..2 * REMEMBERED {
            log.record(event("a", "publish"));
        }
        assert_eq!(log.recent(usize::MAX, None).len(), REMEMBERED);
    }
}

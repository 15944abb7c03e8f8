//! An answer's text to what is said and what is called, as it comes.
use super::{
    envelope::{Envelope, Progress},
    format::{List, Shape, ToolCallFormat},
};
use std::{collections::BTreeSet, sync::Arc};

/// Most white space that is held back in case a call follows it, bytes.
const MAX_SPACE: usize = 256;

/// A piece of an answer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum CallEvent {
    /// Text for the reader.
    Content(String),
    /// A call begins.
    Begins {
        /// Which of the answer's calls, from 0.
        call: usize,
        /// The function.
        name: String,
    },
    /// More of the newest call's arguments, byte by byte as the model wrote them.
    Arguments {
        /// Which of the answer's calls.
        call: usize,
        /// The next piece.
        text: String,
    },
}

/// Which calls are looked for.
#[derive(Clone, Debug)]
pub struct CallsWanted {
    /// The functions there are.
    pub names: Arc<BTreeSet<String>>,
    /// Whether an answer ends with its first call.
    pub only_one: bool,
    /// Whether a call is told as it comes, before it is known to be whole.
    pub streamed: bool,
}

/// Reads one answer.
///
/// What turns out to be no call is given back as content: nothing is lost. A call that is streamed is told when its function and
/// the first byte of its arguments are there; JSON that breaks after that ends the arguments, and the rest is content. Otherwise
/// it is told when it is whole. A call that the answer's end cuts off is told as far as it came. White space around calls is
/// layout.
#[derive(Debug)]
pub struct CallParser {
    shape: &'static Shape,
    wanted: CallsWanted,
    state: State,
    /// Text that is not yet decided.
    held: String,
    /// What was taken for the sake of a call that is not told yet.
    taken: String,
    /// Calls told.
    calls: usize,
}

#[derive(Debug)]
enum State {
    /// Nothing but white space yet.
    Start,
    /// Text.
    Text,
    /// Calls were announced; one is next.
    Next { in_list: bool },
    /// Inside a call.
    Call { envelope: Envelope, in_list: bool, told: bool, sent: usize },
    /// After a call.
    Between { in_list: bool },
    /// After the only call.
    Over,
}

impl CallParser {
    /// For one answer in this format.
    pub fn new(format: ToolCallFormat, wanted: CallsWanted) -> Self {
        let shape = format.shape();
        let state = if shape.bare { State::Start } else { State::Text };
        Self { shape, wanted, state, held: String::new(), taken: String::new(), calls: 0 }
    }

    /// Calls told so far.
    pub fn calls(&self) -> usize {
        self.calls
    }

    /// What the next piece of the answer makes certain.
    pub fn push(&mut self, piece: &str) -> Vec<CallEvent> {
        let mut out = Events::default();
        self.held.push_str(piece);
        while self.step(&mut out) {}
        out.0
    }

    /// What the end of the answer makes certain.
    pub fn finish(&mut self) -> Vec<CallEvent> {
        let mut out = Events::default();
        match std::mem::replace(&mut self.state, State::Over) {
            // After a call there is white space at most, and what there is of the tail.
            State::Over | State::Between { .. } => {}
            State::Start | State::Text => {
                // Space after calls is layout.
                if self.calls == 0 || !self.held.trim().is_empty() {
                    out.content(&self.held);
                }
            }
            State::Next { .. } => {
                let is_layout = |c: char| is_space(c) || matches!(c, ',' | ';');
                if self.calls == 0 || !self.taken.chars().all(is_layout) {
                    out.content(&self.taken);
                }
            }
            State::Call { envelope, told, sent, .. } => {
                if told || envelope.function().is_some() {
                    self.tell(&envelope, told, sent, &mut out);
                } else {
                    out.content(&self.taken);
                    out.content(envelope.text());
                }
            }
        }
        out.0
    }

    /// Whether there is more to do with what is held.
    fn step(&mut self, out: &mut Events) -> bool {
        match std::mem::replace(&mut self.state, State::Over) {
            State::Over => {
                self.held.clear();
                false
            }
            State::Start => self.start(),
            State::Text => self.text(out),
            State::Next { in_list } => self.next(in_list, out),
            State::Call { envelope, in_list, told, sent } => {
                self.call(envelope, in_list, (told, sent), out)
            }
            State::Between { in_list } => self.between(in_list),
        }
    }

    fn start(&mut self) -> bool {
        let text = self.held.trim_start_matches(is_space);
        let opens = match text.chars().next() {
            _ if self.held.len() - text.len() > MAX_SPACE => false,
            None => {
                self.state = State::Start;
                return false;
            }
            Some('{') => true,
            Some('[') => self.shape.list != List::Never,
            Some(_) => false,
        };
        self.state = if opens { State::Next { in_list: false } } else { State::Text };
        true
    }

    fn text(&mut self, out: &mut Events) -> bool {
        let may_call = self.calls == 0 || !self.wanted.only_one;
        let lead = self.shape.lead.filter(|_| may_call).unwrap_or_default();
        let found = if lead.is_empty() { None } else { self.held.find(lead) };
        let text = found.unwrap_or_else(|| self.held.len() - beginning(&self.held, lead));
        let text = text - trailing_space(&self.held[..text]);
        out.content(&self.held[..text]);
        self.held.drain(..text);
        if found.is_none() {
            self.state = State::Text;
            return false;
        }
        let taken = trailing_space_before(&self.held, lead) + lead.len();
        self.taken = self.held.drain(..taken).collect();
        self.state = State::Next { in_list: false };
        true
    }

    fn next(&mut self, in_list: bool, out: &mut Events) -> bool {
        self.take_space();
        let is_list = self.shape.list == List::Always;
        match self.held.chars().next() {
            None => {
                self.state = State::Next { in_list };
                false
            }
            Some('[') if !in_list && self.shape.list != List::Never => {
                self.take(1);
                self.state = State::Next { in_list: true };
                true
            }
            Some('{') if in_list || !is_list => {
                self.state =
                    State::Call { envelope: Envelope::new(), in_list, told: false, sent: 0 };
                true
            }
            Some(_) => self.give_back(out),
        }
    }

    fn call(
        &mut self,
        mut envelope: Envelope,
        in_list: bool,
        (mut told, mut sent): (bool, usize),
        out: &mut Events,
    ) -> bool {
        let names = &self.wanted.names;
        let (used, progress) = envelope.read(&self.held, |name| names.contains(name));
        self.held.drain(..used);
        let is_certain =
            progress == Progress::Closed || (self.wanted.streamed && envelope.function().is_some());
        if is_certain {
            sent = self.tell(&envelope, told, sent, out);
            told = true;
        }
        match progress {
            Progress::Open => {
                self.state = State::Call { envelope, in_list, told, sent };
                false
            }
            Progress::Closed => {
                self.state =
                    if self.wanted.only_one { State::Over } else { State::Between { in_list } };
                true
            }
            Progress::Broken if told => {
                out.content(envelope.after(sent));
                self.state = State::Text;
                true
            }
            Progress::Broken => {
                self.taken.push_str(envelope.text());
                self.give_back(out)
            }
        }
    }

    /// Tells what is new of a call. Returns how much of its arguments is told.
    fn tell(&mut self, envelope: &Envelope, told: bool, sent: usize, out: &mut Events) -> usize {
        if !told {
            self.taken.clear();
            let name = envelope.name().unwrap_or_default().to_owned();
            out.0.push(CallEvent::Begins { call: self.calls, name });
            self.calls += 1;
        }
        let text = match envelope.function() {
            Some(_) => envelope.arguments(sent),
            // A call of a function that takes none.
            None => "{}",
        };
        out.arguments(self.calls - 1, text);
        sent + text.len()
    }

    fn between(&mut self, in_list: bool) -> bool {
        self.take_space();
        let Some(next) = self.held.chars().next() else {
            self.state = State::Between { in_list };
            return false;
        };
        if let Some(tail) = self.shape.tail {
            if self.held.starts_with(tail) {
                self.held.drain(..tail.len());
                self.taken.clear();
                self.state = State::Text;
                return true;
            }
            if tail.starts_with(&self.held) {
                self.state = State::Between { in_list };
                return false;
            }
        }
        let is_bare = self.shape.bare && !in_list;
        self.state = match next {
            ',' if in_list => {
                self.take(1);
                State::Next { in_list }
            }
            ']' if in_list => {
                self.held.drain(..1);
                self.taken.clear();
                State::Text
            }
            _ if self.shape.separator == Some(next) => {
                self.take(next.len_utf8());
                State::Next { in_list }
            }
            '{' if is_bare => State::Next { in_list },
            _ => {
                self.held.insert_str(0, &std::mem::take(&mut self.taken));
                State::Text
            }
        };
        true
    }

    /// It was no call.
    fn give_back(&mut self, out: &mut Events) -> bool {
        out.content(&std::mem::take(&mut self.taken));
        self.state = State::Text;
        true
    }

    fn take_space(&mut self) {
        let space = self.held.len() - self.held.trim_start_matches(is_space).len();
        self.take(space);
    }

    fn take(&mut self, bytes: usize) {
        self.taken.extend(self.held.drain(..bytes));
    }
}

/// Pieces of one kind are joined.
#[derive(Default)]
struct Events(Vec<CallEvent>);

impl Events {
    fn content(&mut self, text: &str) {
        match self.0.last_mut() {
            _ if text.is_empty() => {}
            Some(CallEvent::Content(last)) => last.push_str(text),
            _ => self.0.push(CallEvent::Content(text.to_owned())),
        }
    }

    fn arguments(&mut self, call: usize, text: &str) {
        if !text.is_empty() {
            self.0.push(CallEvent::Arguments { call, text: text.to_owned() });
        }
    }
}

/// JSON's.
fn is_space(character: char) -> bool {
    matches!(character, ' ' | '\n' | '\r' | '\t')
}

/// Bytes of white space at the end that may be layout.
fn trailing_space(text: &str) -> usize {
    (text.len() - text.trim_end_matches(is_space).len()).min(MAX_SPACE)
}

/// Bytes of white space before the lead that `text` begins with after it.
fn trailing_space_before(text: &str, lead: &str) -> usize {
    text.find(lead).unwrap_or_default()
}

/// Bytes of the longest end of `text` that begins `lead` and is not all of it.
fn beginning(text: &str, lead: &str) -> usize {
    let most = lead.len().saturating_sub(1).min(text.len());
    let begins =
        |length: &usize| lead.as_bytes().starts_with(&text.as_bytes()[text.len() - length..]);
    (1..=most).rev().find(begins).unwrap_or(0)
}

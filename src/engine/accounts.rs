//! How much of the machine each adapter has had, so that whoever had least is next.
//!
//! A virtual token counter for each mix of names (Sheng et al. 2024, "Fairness in Serving Large Language Models",
//! algorithm 2): it grows with the tokens computed for it, divided by its share.
use crate::adapter::{AdapterLease, AdapterName};
use std::{collections::HashMap, sync::Arc};

/// What a token of a prompt counts.
pub(super) const PROMPT_TOKEN: f64 = 1.0;
/// What a token of an answer counts: it takes a step of its own.
pub(super) const ANSWER_TOKEN: f64 = 2.0;

/// Adapters of a request, by name, each once; none is the base model.
type Names = Arc<[AdapterName]>;

/// The counters of everybody who has sequences, and of those who went with more than their part.
#[derive(Debug, Default)]
pub(super) struct Accounts {
    open: Vec<Account>,
    places: HashMap<Names, usize>,
    /// Closed ones in `open`, to be used again.
    free: Vec<usize>,
    /// Nobody who comes starts below it.
    floor: f64,
    /// Accounts that may stay before those are looked for that can go.
    kept: usize,
    /// Sequences of all accounts.
    waiting: usize,
    running: usize,
}

/// Index of an account, for as long as a sequence of it waits or runs.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct AccountId(usize);

#[derive(Debug)]
struct Account {
    counter: f64,
    waiting: usize,
    running: usize,
}

impl Account {
    fn is_idle(&self) -> bool {
        self.waiting + self.running == 0
    }
}

impl Accounts {
    /// Accounts that are never looked through.
    const FEW: usize = 64;

    /// One more sequence of these adapters waits.
    ///
    /// Who had none waiting is lifted to the least of those who have: being away saves nothing up.
    pub(super) fn arrive<'a>(
        &mut self,
        leases: impl Iterator<Item = &'a AdapterLease>,
    ) -> AccountId {
        let mut names: Vec<_> = leases.map(|lease| lease.name.clone()).collect();
        names.sort();
        names.dedup();
        let id = self.find(names.into());
        self.raise_floor();
        let floor = self.floor;
        let account = &mut self.open[id.0];
        if account.waiting == 0 {
            account.counter = account.counter.max(floor);
        }
        account.waiting += 1;
        self.waiting += 1;
        id
    }

    fn find(&mut self, names: Names) -> AccountId {
        if let Some(at) = self.places.get(&names) {
            return AccountId(*at);
        }
        if self.places.len() >= self.kept.max(Self::FEW) {
            self.forget_idle();
        }
        let account = Account { counter: 0.0, waiting: 0, running: 0 };
        let at = if let Some(at) = self.free.pop() {
            self.open[at] = account;
            at
        } else {
            self.open.push(account);
            self.open.len() - 1
        };
        self.places.insert(names, at);
        AccountId(at)
    }

    /// Lets those go who have nothing and would be lifted to the floor anyway.
    fn forget_idle(&mut self) {
        let Self { open, places, free, floor, .. } = self;
        places.retain(|_, at| {
            let stays = !open[*at].is_idle() || open[*at].counter > *floor;
            if !stays {
                free.push(*at);
            }
            stays
        });
        self.kept = 2 * self.places.len();
    }

    fn raise_floor(&mut self) {
        let waiting = self.places.values().map(|at| &self.open[*at]).filter(|a| a.waiting > 0);
        if let Some(least) = waiting.map(|account| account.counter).reduce(f64::min) {
            self.floor = self.floor.max(least);
        }
    }

    /// Whose turn comes first: least counter, then fewest running.
    pub(super) fn turn(&self, id: AccountId) -> Turn {
        let account = &self.open[id.0];
        Turn { counter: account.counter, running: account.running }
    }

    /// A waiting sequence runs now.
    pub(super) fn start(&mut self, id: AccountId) {
        let account = &mut self.open[id.0];
        account.waiting -= 1;
        account.running += 1;
        self.waiting -= 1;
        self.running += 1;
        if self.waiting == 0 {
            self.floor = self.floor.max(account.counter);
        }
    }

    /// A running sequence waits again.
    pub(super) fn put_back(&mut self, id: AccountId) {
        let account = &mut self.open[id.0];
        account.running -= 1;
        account.waiting += 1;
        self.running -= 1;
        self.waiting += 1;
    }

    /// A waiting sequence is no more.
    pub(super) fn leave(&mut self, id: AccountId) {
        self.open[id.0].waiting -= 1;
        self.waiting -= 1;
        self.forget_all_if_idle();
    }

    /// A running sequence is no more.
    pub(super) fn end(&mut self, id: AccountId) {
        self.open[id.0].running -= 1;
        self.running -= 1;
        self.forget_all_if_idle();
    }

    /// With nobody there, nobody has had more than another.
    fn forget_all_if_idle(&mut self) {
        if self.waiting + self.running == 0 {
            *self = Self::default();
        }
    }

    /// Books `tokens`, weighted; less than none gives back what was booked too early.
    pub(super) fn charge(&mut self, id: AccountId, tokens: f64, share: f32) {
        let share = if share.is_finite() && share > 0.0 { f64::from(share) } else { 1.0 };
        self.open[id.0].counter += tokens / share;
    }
}

/// A place in the order of turns; the less is next.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Turn {
    counter: f64,
    running: usize,
}

impl Turn {
    /// By counter, then by running sequences.
    pub(super) fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.counter.total_cmp(&other.counter).then(self.running.cmp(&other.running))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::testing::lease;

    fn arrive(accounts: &mut Accounts, names: &[&str]) -> AccountId {
        let leases: Vec<_> = names.iter().map(|name| lease(name)).collect();
        accounts.arrive(leases.iter())
    }

    fn counter(accounts: &Accounts, id: AccountId) -> f64 {
        accounts.turn(id).counter
    }

    fn is(accounts: &Accounts, id: AccountId, expected: f64) -> bool {
        (counter(accounts, id) - expected).abs() < 1e-9
    }

    #[test]
    fn a_mix_has_an_account_of_its_own_whatever_the_order_and_the_versions() {
        let mut accounts = Accounts::default();
        let mix = arrive(&mut accounts, &["a", "b"]);
        assert_eq!(arrive(&mut accounts, &["b", "a", "a"]), mix);
        assert_ne!(arrive(&mut accounts, &["a"]), mix);
        assert_ne!(arrive(&mut accounts, &[]), mix);
    }

    #[test]
    fn twice_the_share_costs_half() {
        let mut accounts = Accounts::default();
        let a = arrive(&mut accounts, &["a"]);
        accounts.charge(a, 10.0, 2.0);
        assert!(is(&accounts, a, 5.0));
        for no_share in [0.0, -1.0, f32::NAN, f32::INFINITY] {
            accounts.charge(a, 1.0, no_share);
        }
        assert!(is(&accounts, a, 9.0));
    }

    #[test]
    fn who_comes_back_has_saved_nothing_and_is_forgiven_nothing() {
        let mut accounts = Accounts::default();
        let [a, b] = ["a", "b"].map(|name| arrive(&mut accounts, &[name]));
        for id in [a, a, a, b] {
            accounts.charge(id, 10.0, 1.0);
        }
        accounts.leave(b);
        accounts.charge(a, 10.0, 1.0);
        let b = arrive(&mut accounts, &["b"]);
        assert!(is(&accounts, b, 40.0), "lifted to the least that wait");
        accounts.charge(b, 100.0, 1.0);
        accounts.start(b);
        accounts.end(b);
        let b = arrive(&mut accounts, &["b"]);
        assert!(is(&accounts, b, 140.0), "it has had more than the others");
        let c = arrive(&mut accounts, &["c"]);
        assert!(is(&accounts, c, 40.0));
    }

    #[test]
    fn with_nobody_waiting_the_last_who_started_is_the_measure() {
        let mut accounts = Accounts::default();
        let a = arrive(&mut accounts, &["a"]);
        accounts.charge(a, 50.0, 1.0);
        accounts.start(a);
        let b = arrive(&mut accounts, &["b"]);
        assert!(is(&accounts, b, 50.0));
        accounts.end(a);
        accounts.leave(b);
        let b = arrive(&mut accounts, &["b"]);
        assert!(is(&accounts, b, 0.0), "everybody was gone");
    }

    #[test]
    fn thousands_that_came_and_went_are_forgotten() {
        let mut accounts = Accounts::default();
        let stays = arrive(&mut accounts, &["stays"]);
        for number in 0..5000 {
            let id = arrive(&mut accounts, &[&format!("a{number}")]);
            accounts.start(id);
            accounts.charge(id, 3.0, 1.0);
            accounts.end(id);
            accounts.charge(stays, 3.0, 1.0);
        }
        assert!(accounts.places.len() < 3 * Accounts::FEW, "{}", accounts.places.len());
        assert!(accounts.open.len() < 3 * Accounts::FEW);
    }
}

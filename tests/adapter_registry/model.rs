//! The registry against a plain map, and its readers against its writers.
use crate::{
    adapter_maker::small_base, adapter_maker::values, config, current, history, id, in_memory,
    listed, publish, wait,
};
use lorad::adapter::{
    AdapterConfig, AdapterLease, AdapterRef, AdapterRegistry, PublishOutcome, PublishRule,
    SwapPolicy,
};
use proptest::prelude::*;
use std::{collections::BTreeMap, sync::atomic::AtomicBool, sync::atomic::Ordering, thread};
use tempfile::TempDir;

#[test]
fn readers_always_see_one_whole_version() {
    let registry = in_memory();
    publish(&registry, "a", 0, PublishRule::Create).expect("free");
    let first = |lease: &AdapterLease| {
        let (_, pair) = lease.weights.sites().next().expect("a site");
        let pair = pair.low_rank.as_ref().expect("a pair");
        pair.rows().expect("rows").0.flatten_all().and_then(|a| a.to_vec1::<f32>()).expect("f32")
    };
    let factors: Vec<Vec<f32>> = (0..4).map(|seed| values(16, seed)).collect();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    let lease = wait(registry.lease(&current("a"))).expect("always there");
                    let number = (0..4).find(|number| id(*number) == lease.id).expect("a content");
                    assert_eq!(first(&lease), factors[number]);
                }
            });
        }
        for round in 1..200 {
            publish(&registry, "a", round % 4, PublishRule::Replace).expect("always");
        }
        done.store(true, Ordering::Relaxed);
    });
}

#[derive(Clone, Debug)]
enum Step {
    Publish(usize, usize, PublishRule),
    Retire(usize, Option<usize>),
    Lease(usize, Option<usize>),
    RollBack(usize, Option<usize>),
    Refresh,
    Drop(prop::sample::Index),
    Restart,
}

const NAMES: [&str; 3] = ["a", "b", "c.1"];
/// Versions of a name that are kept: fewer than there are contents.
const KEPT: usize = 3;

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let rule = prop_oneof![
        Just(PublishRule::Replace),
        Just(PublishRule::Create),
        (0..4usize).prop_map(|number| PublishRule::ReplaceIf(id(number))),
    ];
    let step = prop_oneof![
        5 => (0..3usize, 0..4usize, rule).prop_map(|(n, c, rule)| Step::Publish(n, c, rule)),
        2 => (0..3usize, prop::option::of(0..4usize)).prop_map(|(n, v)| Step::Retire(n, v)),
        4 => (0..3usize, prop::option::of(0..4usize)).prop_map(|(n, v)| Step::Lease(n, v)),
        2 => (0..3usize, prop::option::of(0..4usize)).prop_map(|(n, v)| Step::RollBack(n, v)),
        1 => Just(Step::Refresh),
        2 => any::<prop::sample::Index>().prop_map(Step::Drop),
        1 => Just(Step::Restart),
    ];
    prop::collection::vec(step, 1..30)
}

/// What the registry should know: contents by number.
#[derive(Default)]
struct Model {
    /// Each name's history, the current content first.
    current: BTreeMap<usize, Vec<usize>>,
    /// Leases and the name and content each is of.
    leases: Vec<(usize, usize, AdapterLease)>,
}

impl Model {
    fn now(&self, name: usize) -> Option<usize> {
        self.current.get(&name).map(|history| history[0])
    }

    fn mean(&mut self, name: usize, number: usize) {
        let history = self.current.entry(name).or_default();
        history.retain(|other| *other != number);
        history.insert(0, number);
        history.truncate(KEPT);
    }

    fn publish(
        &mut self,
        registry: &AdapterRegistry,
        name: usize,
        number: usize,
        rule: PublishRule,
    ) {
        let wanted = match (self.now(name), rule) {
            (Some(now), _) if now == number => Some(PublishOutcome::Unchanged),
            (None, PublishRule::Replace | PublishRule::Create) => Some(PublishOutcome::Created),
            (Some(now), PublishRule::Replace) => Some(PublishOutcome::Replaced(id(now))),
            (Some(now), PublishRule::ReplaceIf(expected)) if id(now) == expected => {
                Some(PublishOutcome::Replaced(expected))
            }
            _ => None,
        };
        assert_eq!(publish(registry, NAMES[name], number, rule).ok(), wanted);
        if wanted.is_some() {
            self.mean(name, number);
        }
    }

    fn roll_back(&mut self, registry: &AdapterRegistry, name: usize, to: Option<usize>) {
        let history = self.current.get(&name).cloned().unwrap_or_default();
        let wanted = match to {
            None => history.get(1).copied(),
            Some(to) => Some(to).filter(|to| history.contains(to)),
        };
        let name_text = NAMES[name].parse().expect("a name");
        let options = (String::new(), SwapPolicy::Pin);
        let done = wait(registry.roll_back(name_text, to.map(id), None, options));
        assert_eq!(done.ok().map(|done| done.version), wanted.map(id));
        if let Some(number) = wanted {
            self.mean(name, number);
        }
    }

    fn retire(&mut self, registry: &AdapterRegistry, name: usize, expected: Option<usize>) {
        let wanted = self.now(name).filter(|now| expected.is_none_or(|expected| expected == *now));
        let name_text = NAMES[name].parse().expect("a name");
        let retired = wait(registry.retire(name_text, expected.map(id), SwapPolicy::Pin));
        assert_eq!(retired.ok(), wanted.map(id));
        if wanted.is_some() {
            self.current.remove(&name);
        }
    }

    fn lease(&mut self, registry: &AdapterRegistry, name: usize, version: Option<usize>) {
        let history = self.current.get(&name).cloned().unwrap_or_default();
        let wanted = match version {
            None => history.first().copied(),
            Some(version) => Some(version).filter(|version| history.contains(version)),
        };
        let reference =
            AdapterRef { name: NAMES[name].parse().expect("a name"), version: version.map(id) };
        let lease = wait(registry.lease(&reference)).ok();
        assert_eq!(lease.as_ref().map(|lease| lease.id), wanted.map(id));
        self.leases.extend(lease.zip(wanted).map(|(lease, number)| (name, number, lease)));
    }

    fn check(&self, registry: &AdapterRegistry) {
        let wanted = self.current.iter().map(|(n, history)| (NAMES[*n].to_owned(), id(history[0])));
        assert_eq!(listed(registry), wanted.collect());
        for (name, numbers) in &self.current {
            assert_eq!(history(registry, NAMES[*name]), *numbers);
        }
        for (name, number, lease) in &self.leases {
            assert_eq!((lease.name.as_str(), lease.id), (NAMES[*name], id(*number)));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn the_registry_behaves_as_a_map(
        steps in steps(),
        durable in any::<bool>(),
        memory in prop_oneof![Just(0_u64), Just(1 << 30)],
    ) {
        let root = TempDir::new().expect("a directory");
        let start = || {
            let settings = AdapterConfig {
                adapters: config(root.path()).adapters.filter(|_| durable),
                adapter_memory_bytes: memory,
                adapter_versions: KEPT,
                ..Default::default()
            };
            AdapterRegistry::open(&settings, small_base(), "base").expect("a store").0
        };
        let (mut registry, mut model) = (start(), Model::default());
        for step in steps {
            match step {
                Step::Publish(name, number, rule) => model.publish(&registry, name, number, rule),
                Step::Retire(name, expected) => model.retire(&registry, name, expected),
                Step::Lease(name, version) => model.lease(&registry, name, version),
                Step::Drop(at) if !model.leases.is_empty() => {
                    drop(model.leases.swap_remove(at.index(model.leases.len())));
                }
                Step::Drop(_) => {}
                Step::RollBack(name, to) => model.roll_back(&registry, name, to),
                Step::Refresh => prop_assert!(registry.refresh().expect("listed").loaded.is_empty()),
                Step::Restart => {
                    registry = start();
                    model.leases.clear();
                    if !durable {
                        model.current.clear();
                    }
                }
            }
            model.check(&registry);
        }
    }
}

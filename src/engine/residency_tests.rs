//! What is claimed stays, what is on its way comes, and both bounds hold.
use super::{
    mix::ActivePart,
    residency::{AdapterResidency, Load, Readiness},
};
use crate::{
    adapter::VersionId,
    engine::testing::{lease, part, pinned},
    lora::AdapterSlot,
};
use proptest::prelude::*;
use std::collections::{BTreeSet, HashMap};

const ANY: fn(VersionId) -> bool = |_| false;

fn parts(names: &[&str]) -> Vec<ActivePart> {
    names.iter().map(|name| part(lease(name), 10)).collect()
}

/// Brings them, if there is room, and has them there at once.
fn bring(residency: &mut AdapterResidency, names: &[&str]) -> Option<Vec<usize>> {
    let loads = residency.bring(&parts(names), ANY)?;
    for load in &loads {
        residency.loaded(load.slot, 10, ANY);
    }
    Some(loads.iter().map(|load| load.slot.0).collect())
}

fn claim(residency: &mut AdapterResidency, names: &[&str]) -> Option<Vec<AdapterSlot>> {
    let mut slots = Vec::new();
    residency.claim(&parts(names), &mut slots).then_some(slots)
}

fn names(residency: &AdapterResidency) -> BTreeSet<String> {
    residency.names().map(ToString::to_string).collect()
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(ToString::to_string).collect()
}

#[test]
fn the_least_recently_used_version_makes_room() {
    let mut residency = AdapterResidency::new(2, usize::MAX);
    bring(&mut residency, &["a"]).expect("room");
    bring(&mut residency, &["b"]).expect("room");
    let [a, b] = ["a", "b"].map(|name| claim(&mut residency, &[name]).expect("there")[0]);
    assert_eq!(bring(&mut residency, &["c"]), None, "both are in use");
    residency.release(b);
    residency.release(a);
    assert_eq!(bring(&mut residency, &["c"]), Some(vec![b.0]));
    assert_eq!(names(&residency), set(&["a", "c"]));
    let mut vacated = Vec::new();
    residency.sweep();
    residency.take_vacated(&mut vacated);
    assert_eq!((vacated, residency.evictions()), (vec![b], 1));
}

#[test]
fn what_is_on_its_way_is_waited_for_and_not_evicted() {
    let mut residency = AdapterResidency::new(1, usize::MAX);
    let loads = residency.bring(&parts(&["a"]), ANY).expect("room");
    assert_eq!(residency.readiness(&parts(&["a"])), Readiness::Coming);
    assert_eq!(claim(&mut residency, &["a"]), None);
    assert!(residency.bring(&parts(&["b"]), ANY).is_none());
    assert!(names(&residency).is_empty() && !residency.has_unused());
    residency.loaded(loads[0].slot, 10, ANY);
    assert_eq!(residency.readiness(&parts(&["a"])), Readiness::Ready);
    assert_eq!(residency.readiness(&parts(&["a", "b"])), Readiness::Missing);
    assert_eq!(residency.readiness(&[]), Readiness::Ready, "the base needs none");
    assert!(bring(&mut residency, &["b"]).is_some(), "nobody wanted it any more");
}

#[test]
fn a_failed_load_is_not_taken_for_the_adapter() {
    let mut residency = AdapterResidency::new(1, usize::MAX);
    let loads = residency.bring(&parts(&["a"]), ANY).expect("room");
    assert_eq!(residency.failed(loads[0].slot), Some(lease("a").id));
    assert_eq!((residency.loading(), residency.bytes()), (0, 0));
    assert!(bring(&mut residency, &["a"]).is_some());
}

#[test]
fn a_departed_version_leaves_with_its_last_sequence() {
    let mut residency = AdapterResidency::new(1, usize::MAX);
    bring(&mut residency, &["a"]);
    let slots = claim(&mut residency, &["a"]).expect("there");
    residency.forget(lease("a").id);
    let mut vacated = Vec::new();
    residency.sweep();
    residency.take_vacated(&mut vacated);
    assert!(vacated.is_empty(), "still in use");
    residency.release(slots[0]);
    residency.sweep();
    residency.take_vacated(&mut vacated);
    assert_eq!(vacated, slots);
    assert!(names(&residency).is_empty());
    assert!(bring(&mut residency, &["a"]).is_some());
}

#[test]
fn a_mix_gets_all_its_slots_or_none() {
    let mut residency = AdapterResidency::new(2, usize::MAX);
    bring(&mut residency, &["a"]);
    let a = claim(&mut residency, &["a"]).expect("there");
    assert_eq!(bring(&mut residency, &["b", "c"]), None, "one slot for two");
    assert_eq!(names(&residency), set(&["a"]), "nothing was evicted for it");
    residency.release(a[0]);
    // `a` was used longest ago, and still is not evicted for the `b` before it.
    assert_eq!(bring(&mut residency, &["b", "a"]), Some(vec![1]));
    assert_eq!(claim(&mut residency, &["b", "a"]).map(|slots| slots.len()), Some(2));
    assert_eq!(bring(&mut residency, &["c"]), None);
    assert_eq!(claim(&mut residency, &[]), Some(vec![]));
}

#[test]
fn bytes_bound_what_is_there_though_slots_are_free() {
    let mut residency = AdapterResidency::new(4, 25);
    for name in ["a", "b", "c"] {
        bring(&mut residency, &[name]).expect("room");
    }
    assert_eq!((names(&residency), residency.bytes()), (set(&["b", "c"]), 20));
    let held = claim(&mut residency, &["c"]).expect("there");
    let large = [part(lease("large"), 100)];
    assert!(residency.bring(&large, ANY).is_none(), "`c` is in use");
    residency.release(held[0]);
    let loads = residency.bring(&large, ANY).expect("alone it may be larger than all");
    assert_eq!((residency.used(), residency.bytes()), (1, 100));
    assert!(residency.bring(&parts(&["a"]), ANY).is_none());
    residency.loaded(loads[0].slot, 110, ANY);
    assert!(bring(&mut residency, &["a"]).is_some());
    assert_eq!(names(&residency), set(&["a"]));
}

#[test]
fn more_bytes_than_planned_push_out_what_nobody_needs() {
    let mut residency = AdapterResidency::new(4, 30);
    for name in ["a", "b"] {
        bring(&mut residency, &[name]).expect("room");
    }
    let loads = residency.bring(&parts(&["c"]), ANY).expect("room");
    residency.loaded(loads[0].slot, 15, |version| version == lease("a").id);
    assert_eq!((names(&residency), residency.bytes()), (set(&["a", "c"]), 25));
}

#[test]
fn a_pinned_version_goes_last_and_still_makes_room_for_the_last_request() {
    let mut residency = AdapterResidency::new(2, usize::MAX);
    let loads = residency.bring(&[part(pinned("pin"), 10)], ANY).expect("room");
    residency.loaded(loads[0].slot, 10, ANY);
    for name in ["a", "b", "c"] {
        bring(&mut residency, &[name]).expect("room");
        assert_eq!(names(&residency), set(&["pin", name]));
    }
    let _used = claim(&mut residency, &["c"]).expect("there");
    bring(&mut residency, &["d"]).expect("room");
    assert_eq!(names(&residency), set(&["c", "d"]));
}

#[test]
fn who_has_waited_long_enough_is_told_what_has_to_go_first() {
    let mut residency = AdapterResidency::new(2, usize::MAX);
    bring(&mut residency, &["a", "b"]).expect("room");
    let used = ["a", "b", "b"].map(|name| claim(&mut residency, &[name]).expect("there")[0]);
    let fewest = residency.bring_or_hold(&parts(&["c"])).expect_err("both are in use");
    assert_eq!(fewest, [lease("a").id]);
    let both = residency.bring_or_hold(&parts(&["c", "d"])).expect_err("both are in use");
    assert_eq!(both.len(), 2);
    let with_own = residency.bring_or_hold(&parts(&["a", "d"])).expect_err("it keeps its own");
    assert_eq!(with_own, [lease("b").id]);
    residency.release(used[0]);
    assert_eq!(residency.bring_or_hold(&parts(&["c"])).expect("room").len(), 1);
}

#[derive(Clone, Debug)]
enum Action {
    Want(BTreeSet<usize>),
    Arrive(bool, usize),
    Release(usize),
    Forget(usize),
}

fn actions() -> impl Strategy<Value = Vec<Action>> {
    let some = prop::collection::btree_set(0_usize..6, 1..4);
    let action = prop_oneof![
        4 => some.prop_map(Action::Want),
        3 => (prop::bool::weighted(0.8), 0_usize..5).prop_map(|(ok, extra)| Action::Arrive(ok, extra)),
        3 => any::<usize>().prop_map(Action::Release),
        1 => (0_usize..6).prop_map(Action::Forget),
    ];
    prop::collection::vec(action, 1..100)
}

proptest! {
    #[test]
    fn what_is_claimed_stays_and_the_bounds_hold(
        slots in 3_usize..6,
        budget in prop_oneof![Just(usize::MAX), 20_usize..60],
        actions in actions(),
    ) {
        // Number `n` takes 10 + n bytes as planned and up to 4 more; the even ones are pinned.
        let wanted = |n: &usize| {
            let name = format!("a{n}");
            part(if n.is_multiple_of(2) { pinned(&name) } else { lease(&name) }, 10 + n)
        };
        let mut residency = AdapterResidency::new(slots, budget);
        let mut claims: Vec<(AdapterSlot, VersionId)> = Vec::new();
        let mut coming: Vec<(AdapterSlot, VersionId, usize)> = Vec::new();
        let mut there: HashMap<AdapterSlot, VersionId> = HashMap::new();
        for action in actions {
            let before = residency.bytes();
            match action {
                Action::Want(which) => {
                    let parts: Vec<_> = which.iter().map(wanted).collect();
                    let mut got = Vec::new();
                    if residency.claim(&parts, &mut got) {
                        claims.extend(got.into_iter().zip(parts.iter().map(|p| p.lease.id)));
                    } else if let Some(loads) = residency.bring(&parts, ANY) {
                        let planned = |load: &Load| {
                            parts.iter().find(|p| p.lease.id == load.lease.id).map_or(0, |p| p.bytes)
                        };
                        coming.extend(loads.iter().map(|l| (l.slot, l.lease.id, planned(l))));
                        let alone = residency.used() <= parts.len();
                        prop_assert!(residency.bytes() <= budget || alone);
                    } else {
                        prop_assert_eq!(residency.bytes(), before, "nothing was evicted for nothing");
                    }
                }
                Action::Arrive(ok, extra) if !coming.is_empty() => {
                    let (slot, version, planned) = coming.remove(0);
                    if ok {
                        residency.loaded(slot, planned + extra, ANY);
                        there.insert(slot, version);
                    } else {
                        prop_assert_eq!(residency.failed(slot), Some(version));
                    }
                }
                Action::Release(which) if !claims.is_empty() => {
                    let (slot, _) = claims.swap_remove(which % claims.len());
                    residency.release(slot);
                }
                Action::Forget(n) => residency.forget(wanted(&n).lease.id),
                _ => {}
            }
            let mut vacated = Vec::new();
            residency.sweep();
    residency.take_vacated(&mut vacated);
            for slot in vacated {
                there.remove(&slot);
            }
            for (slot, version) in &claims {
                prop_assert_eq!(there.get(slot), Some(version), "a claimed slot was evicted");
            }
            for (slot, version, _) in &coming {
                prop_assert_eq!(residency.version(*slot), Some(*version), "it was on its way");
            }
            let resident: BTreeSet<_> = residency.versions().collect();
            prop_assert_eq!(resident, there.values().copied().collect::<BTreeSet<_>>());
            prop_assert_eq!(residency.loading(), coming.len());
        }
        for (slot, _, _) in coming {
            residency.loaded(slot, 1, ANY);
        }
        for (slot, _) in claims {
            residency.release(slot);
        }
        let all: Vec<_> = (0..slots).map(|n| part(lease(&format!("other{n}")), 1)).collect();
        prop_assert!(residency.bring(&all, ANY).is_some(), "a slot leaked");
    }
}

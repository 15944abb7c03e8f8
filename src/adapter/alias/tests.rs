//! Aliases over a store in memory, with a clock that the test turns.
use super::{
    Alias, AliasAction, AliasDraft, AliasError, AliasEvent, AliasForm, AliasOutcome, AliasRule,
    Aliases, Author, Drawn, Observation, Target, Trip,
};
use crate::adapter::{
    AdapterError, AdapterName, Content, ObjectInfo, Objects, Stamp, VersionId, WriteRule,
};
use bytes::Bytes;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant, SystemTime},
};

/// Bytes under paths; every write has a number, which is its stamp.
#[derive(Debug, Default)]
struct Shelves {
    objects: Mutex<BTreeMap<String, (Vec<u8>, u64)>>,
    writes: Mutex<u64>,
    broken: AtomicBool,
}

impl Shelves {
    fn works(&self) -> Result<(), AdapterError> {
        if self.broken.load(Relaxed) { Err(io::Error::other("told to").into()) } else { Ok(()) }
    }
}

impl Objects for Shelves {
    fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, AdapterError> {
        self.works()?;
        let info = |(path, (bytes, number)): (&String, &(Vec<u8>, u64))| ObjectInfo {
            path: path.clone(),
            bytes: bytes.len() as u64,
            modified: SystemTime::now(),
            stamp: Stamp(number.to_string()),
        };
        let objects = self.objects.lock().expect("objects");
        Ok(objects.iter().filter(|(path, _)| path.starts_with(prefix)).map(info).collect())
    }

    fn get(&self, path: &str, _: u64) -> Result<Option<(Bytes, Stamp)>, AdapterError> {
        self.works()?;
        let objects = self.objects.lock().expect("objects");
        let found = objects.get(path);
        Ok(found.map(|(bytes, number)| (bytes.clone().into(), Stamp(number.to_string()))))
    }

    fn put(
        &self,
        path: &str,
        content: Content<'_>,
        rule: WriteRule<'_>,
    ) -> Result<Option<Stamp>, AdapterError> {
        self.works()?;
        let Content::Bytes(bytes) = content else { panic!("aliases are small") };
        let mut objects = self.objects.lock().expect("objects");
        let there = objects.get(path).map(|(_, number)| Stamp(number.to_string()));
        let holds = match rule {
            WriteRule::Always => true,
            WriteRule::IfAbsent => there.is_none(),
            WriteRule::IfUnchanged(stamp) => there.as_ref() == Some(stamp),
        };
        if !holds {
            return Ok(None);
        }
        let mut writes = self.writes.lock().expect("a number");
        *writes += 1;
        objects.insert(path.to_owned(), (bytes.to_vec(), *writes));
        Ok(Some(Stamp(writes.to_string())))
    }

    fn delete(&self, path: &str) -> Result<(), AdapterError> {
        self.works()?;
        self.objects.lock().expect("objects").remove(path);
        Ok(())
    }

    fn append(&self, _: &str, _: &str) -> Result<(), AdapterError> {
        unreachable!("aliases write no log")
    }

    fn tail(&self, _: &str, _: usize) -> Result<Vec<String>, AdapterError> {
        unreachable!("aliases read no log")
    }

    fn is_writable(&self) -> bool {
        true
    }
}

/// Aliases, and the adapters that are published beside them.
struct Place {
    aliases: Aliases,
    published: Mutex<BTreeSet<&'static str>>,
    events: Arc<Mutex<Vec<AliasEvent>>>,
}

fn name(text: &str) -> AdapterName {
    text.parse().expect("a name")
}

fn author() -> Author {
    Author { by: "me".into(), at: SystemTime::UNIX_EPOCH + Duration::from_secs(9) }
}

fn form(body: Value) -> AliasForm {
    let draft: AliasDraft = serde_json::from_value(body).expect("a draft");
    draft.check("base").expect("a form")
}

/// `stable` and `canary` in these shares.
fn split(stable: u32, canary: u32) -> AliasForm {
    form(json!({"targets": [{"model": "stable", "weight": stable},
                            {"model": "canary", "weight": canary}]}))
}

fn guarded(stable: u32, canary: u32) -> AliasForm {
    form(json!({"targets": [{"model": "stable", "weight": stable},
                            {"model": "canary", "weight": canary}],
                "guard": {"max_error_rate": 0.25, "min_requests": 8, "window_seconds": 64}}))
}

impl Place {
    fn new(store: Option<Arc<Shelves>>) -> Self {
        let store = store.map(|store| store as Arc<dyn Objects>);
        let aliases = Aliases::new("base", store);
        let events: Arc<Mutex<Vec<AliasEvent>>> = Arc::default();
        let told = Arc::clone(&events);
        aliases.on_change(Box::new(move |event| told.lock().expect("events").push(event.clone())));
        let published = Mutex::new(["stable", "canary", "other"].into());
        Self { aliases, published, events }
    }

    fn is_there(&self, target: &Target) -> bool {
        let published = self.published.lock().expect("names");
        target.adapter().is_none_or(|name| published.contains(name.as_str()))
    }

    fn put(&self, alias: &str, form: &AliasForm, rule: AliasRule) -> Result<Put, AliasError> {
        self.aliases.put(&name(alias), form, rule, &author(), &|target| self.is_there(target))
    }

    fn roll_back(&self, alias: &str) -> Result<Arc<Alias>, AliasError> {
        self.aliases.roll_back(&name(alias), None, &author(), &|target| self.is_there(target))
    }

    fn flip(&self, trip: &Trip) -> Option<Arc<Alias>> {
        self.aliases.flip_back(trip, SystemTime::UNIX_EPOCH, &|target| self.is_there(target))
    }

    fn form(&self, alias: &str) -> Option<AliasForm> {
        self.aliases.get(&name(alias)).map(|alias| alias.form().clone())
    }

    fn draw(&self, alias: &str, chance: f64) -> Result<Drawn, AliasError> {
        let alias = self.aliases.get(&name(alias)).expect("an alias");
        alias.draw(None, chance, |target| self.is_there(target))
    }

    fn actions(&self) -> Vec<AliasAction> {
        self.events.lock().expect("events").iter().map(|event| event.action).collect()
    }
}

type Put = (Arc<Alias>, AliasOutcome);

fn drawn(drawn: Result<Drawn, AliasError>) -> String {
    drawn.expect("a target").target().to_string()
}

#[test]
fn a_put_is_served_and_told_and_the_same_again_is_nothing() {
    let place = Place::new(None);
    let (first, outcome) = place.put("chat", &split(9, 1), AliasRule::Always).expect("put");
    assert_eq!(outcome, AliasOutcome::Created);
    assert!(!first.is_durable(), "there is no store");
    assert_eq!(drawn(place.draw("chat", 0.0)), "stable");
    assert_eq!(drawn(place.draw("chat", 0.95)), "canary");
    let (again, outcome) = place.put("chat", &split(9, 1), AliasRule::Always).expect("put");
    assert_eq!((outcome, again.revision()), (AliasOutcome::Unchanged, first.revision()));
    let (_, outcome) = place.put("chat", &split(1, 1), AliasRule::Always).expect("put");
    assert_eq!(outcome, AliasOutcome::Replaced);
    let events = place.events.lock().expect("events");
    assert_eq!(events.len(), 2);
    assert_eq!(events[1].previous, Some(first.revision()));
    assert_eq!(events[1].by, "me");
    assert!(events[1].detail.contains("stable 0.5"), "{}", events[1].detail);
}

#[test]
fn a_name_means_one_thing() {
    let place = Place::new(None);
    for (alias, form) in [("stable", split(1, 1)), ("BASE", split(1, 1))] {
        let error = place.put(alias, &form, AliasRule::Always).expect_err("taken");
        assert!(matches!(error, AliasError::Taken(_)), "{error}");
    }
    place.put("chat", &split(1, 1), AliasRule::Always).expect("free");
    let twin = place.put("Chat", &split(1, 1), AliasRule::Always).expect_err("a twin");
    assert!(twin.to_string().contains("case only"), "{twin}");
    assert!(place.aliases.check_free(&name("chat")).is_err());
    assert!(place.aliases.check_free(&name("new")).is_ok());
    let used = place.aliases.check_unused(&name("canary")).expect_err("in use");
    assert!(used.to_string().contains("`chat`"), "{used}");
    assert!(place.aliases.check_unused(&name("other")).is_ok());
}

#[test]
fn targets_must_be_there_and_be_no_aliases() {
    let place = Place::new(None);
    place.put("chat", &split(1, 1), AliasRule::Always).expect("put");
    for (body, field) in [
        (json!({"targets": [{"model": "nope"}]}), "targets[0].model"),
        (json!({"targets": [{"model": "stable"}], "shadow": "nope"}), "shadow"),
        (json!({"targets": [{"model": "chat"}]}), "targets[0].model"),
    ] {
        let error = place.put("new", &form(body), AliasRule::Always).expect_err("refused");
        let (AliasError::UnknownTarget { field: at, .. } | AliasError::Invalid { field: at, .. }) =
            &error
        else {
            panic!("{error}")
        };
        assert_eq!(at, field);
    }
    let base = form(json!({"targets": [{"model": "base"}]}));
    place.put("plain", &base, AliasRule::Always).expect("the base is always there");
}

#[test]
fn a_change_can_ask_for_what_it_replaces() {
    let place = Place::new(Some(Arc::default()));
    let (first, _) = place.put("chat", &split(9, 1), AliasRule::Create).expect("free");
    let lost = place.put("chat", &split(1, 1), AliasRule::Create).expect_err("taken");
    assert!(lost.to_string().contains(&first.revision().to_string()), "{lost}");
    let swap = AliasRule::ReplaceIf(first.revision());
    let (second, _) = place.put("chat", &split(1, 1), swap).expect("current");
    assert!(matches!(
        place.put("chat", &split(2, 1), swap),
        Err(AliasError::Conflict { current, .. }) if current == second.revision()
    ));
    assert!(matches!(place.put("new", &split(2, 1), swap), Err(AliasError::NotFound(_))));
    let stale = Some(first.revision());
    assert!(place.aliases.delete(&name("chat"), stale, &author()).is_err());
    place.aliases.delete(&name("chat"), Some(second.revision()), &author()).expect("current");
    let (again, _) = place.put("chat", &split(9, 1), AliasRule::Create).expect("free again");
    let later = place.put("chat", &split(1, 1), AliasRule::ReplaceIf(again.revision()));
    assert!(later.is_ok());
}

#[test]
fn one_call_goes_back_and_the_next_one_forth() {
    let place = Place::new(None);
    place.put("chat", &split(1, 0), AliasRule::Always).expect("put");
    assert!(matches!(place.roll_back("chat"), Err(AliasError::NothingBefore(_))));
    assert!(matches!(place.roll_back("nope"), Err(AliasError::NotFound(_))));
    place.put("chat", &split(9, 1), AliasRule::Always).expect("put");
    assert_eq!(place.roll_back("chat").expect("back").form(), &split(1, 0));
    assert_eq!(place.roll_back("chat").expect("forth").form(), &split(9, 1));
    let only = form(json!({"targets": [{"model": "other"}]}));
    place.put("chat", &only, AliasRule::Always).expect("put");
    place.published.lock().expect("names").retain(|name| *name == "other");
    assert!(matches!(place.roll_back("chat"), Err(AliasError::NoTargetLeft { .. })));
    assert_eq!(place.form("chat"), Some(only));
}

#[test]
fn what_is_retired_is_passed_over_until_nothing_is_left() {
    let place = Place::new(None);
    place.put("chat", &split(9, 1), AliasRule::Always).expect("put");
    place.published.lock().expect("names").remove("stable");
    for chance in [0.0, 0.5, 0.99] {
        assert_eq!(drawn(place.draw("chat", chance)), "canary");
    }
    place.published.lock().expect("names").remove("canary");
    let error = place.draw("chat", 0.0).expect_err("nothing is left");
    let text = error.to_string();
    assert!(text.contains("`chat`") && text.contains("`stable`"), "{text}");
}

#[test]
fn aliases_outlive_the_process_and_reach_other_replicas() {
    let store: Arc<Shelves> = Arc::default();
    let here = Place::new(Some(Arc::clone(&store)));
    let (put, _) = here.put("chat", &guarded(9, 1), AliasRule::Always).expect("put");
    assert!(put.is_durable());
    here.put("gone", &split(1, 1), AliasRule::Always).expect("put");

    let there = Place::new(Some(Arc::clone(&store)));
    there.aliases.refresh().expect("a store");
    let found = there.aliases.get(&name("chat")).expect("stored");
    assert_eq!((found.form(), found.revision()), (put.form(), put.revision()));
    assert_eq!(found.record().changed_by, "me");
    assert_eq!(found.record().changed_at(), author().at);

    there.put("chat", &split(1, 1), AliasRule::ReplaceIf(put.revision())).expect("seen");
    there.aliases.delete(&name("gone"), None, &author()).expect("seen");
    assert_eq!(here.form("chat"), Some(guarded(9, 1)), "not yet");
    // What another replica wrote counts before it is seen.
    let lost = here.put("chat", &split(3, 1), AliasRule::ReplaceIf(put.revision()));
    assert!(matches!(lost, Err(AliasError::Conflict { .. })));
    here.aliases.refresh().expect("a store");
    assert_eq!((here.form("chat"), here.form("gone")), (Some(split(1, 1)), None));
    assert_eq!(here.roll_back("chat").expect("their past").form(), &guarded(9, 1));
    assert_eq!(here.actions().last(), Some(&AliasAction::RolledBack));
}

#[test]
fn an_alias_that_cannot_be_read_is_left_out_and_can_be_put_anew() {
    let store: Arc<Shelves> = Arc::default();
    let path = ".lorad/aliases/chat.json";
    store.put(path, Content::Bytes(b"{"), WriteRule::Always).expect("written");
    store.put(".lorad/aliases/no name", Content::Bytes(b"{"), WriteRule::Always).expect("written");
    let place = Place::new(Some(Arc::clone(&store)));
    for _ in 0..2 {
        place.aliases.refresh().expect("the others count");
        assert!(place.aliases.list().is_empty());
    }
    let record = json!({"form": split(1, 1), "action": "put", "changed_by": "x",
                        "changed_at_ms": 1});
    let record = record.to_string();
    store.put(path, Content::Bytes(record.as_bytes()), WriteRule::Always).expect("written");
    place.aliases.refresh().expect("a store");
    assert_eq!(place.form("chat"), Some(split(1, 1)));
}

#[test]
fn a_store_that_fails_changes_nothing() {
    let store: Arc<Shelves> = Arc::default();
    let place = Place::new(Some(Arc::clone(&store)));
    place.put("chat", &split(1, 0), AliasRule::Always).expect("put");
    store.broken.store(true, Relaxed);
    for result in [
        place.put("chat", &split(1, 1), AliasRule::Always).map(drop),
        place.put("new", &split(1, 1), AliasRule::Always).map(drop),
        place.aliases.delete(&name("chat"), None, &author()).map(drop),
        place.aliases.refresh(),
    ] {
        assert!(matches!(result, Err(AliasError::Store(_))));
    }
    assert_eq!((place.form("chat"), place.form("new")), (Some(split(1, 0)), None));
    assert_eq!(place.actions(), [AliasAction::Put]);
}

/// Draws a target by chance and reports what became of its request.
fn report(place: &Place, chance: f64, seen: Observation, at: Instant) -> Option<Trip> {
    place.draw("chat", chance).expect("a target").observe(seen, at)
}

const STABLE: f64 = 0.0;
const CANARY: f64 = 0.99;
const ANSWERED: Observation = Observation::Answered(Duration::from_millis(5));

#[test]
fn a_failing_new_target_goes_back_once_and_at_once() {
    let store: Arc<Shelves> = Arc::default();
    let place = Place::new(Some(Arc::clone(&store)));
    place.put("chat", &split(1, 0), AliasRule::Always).expect("put");
    place.put("chat", &guarded(9, 1), AliasRule::Always).expect("put");
    let now = Instant::now();
    for _ in 0..20 {
        assert!(report(&place, STABLE, Observation::Failed, now).is_none(), "it is not new");
    }
    for _ in 0..7 {
        assert!(report(&place, CANARY, Observation::Failed, now).is_none(), "too few to tell");
    }
    let late = place.draw("chat", CANARY).expect("a target");
    let trip = report(&place, CANARY, Observation::Failed, now).expect("over the limit");
    assert!(trip.reason.contains("8 of 8"), "{}", trip.reason);
    assert_eq!(drawn(place.draw("chat", CANARY)), "stable", "before it is taken back");
    assert!(late.observe(Observation::Failed, now).is_none(), "once");

    let flipped = place.flip(&trip).expect("back");
    assert_eq!(flipped.form(), &split(1, 0));
    assert!(flipped.is_durable());
    assert!(place.flip(&trip).is_none(), "once");
    let record = flipped.record();
    assert_eq!((record.changed_by.as_str(), record.action), ("guard", AliasAction::FlippedBack));
    assert!(record.reason.as_deref().expect("a reason").contains("`canary`"));
    let there = Place::new(Some(store));
    there.aliases.refresh().expect("a store");
    assert_eq!(there.form("chat"), Some(split(1, 0)));
    let expected = [AliasAction::Put, AliasAction::Put, AliasAction::FlippedBack];
    assert_eq!(place.actions(), expected);
    assert_eq!(place.roll_back("chat").expect("its past").form(), &guarded(9, 1));
}

#[test]
fn old_failures_do_not_count_and_rates_are_of_all_requests() {
    let place = Place::new(None);
    place.put("chat", &split(1, 0), AliasRule::Always).expect("put");
    place.put("chat", &guarded(9, 1), AliasRule::Always).expect("put");
    let start = Instant::now();
    for _ in 0..7 {
        assert!(report(&place, CANARY, Observation::Failed, start).is_none());
    }
    let later = start + Duration::from_secs(65);
    for _ in 0..6 {
        assert!(report(&place, CANARY, ANSWERED, later).is_none());
    }
    for _ in 0..2 {
        assert!(
            report(&place, CANARY, Observation::Failed, later).is_none(),
            "a quarter is allowed"
        );
    }
    let counts = place.aliases.get(&name("chat")).expect("an alias").counts(later);
    assert_eq!((counts[1].requests, counts[1].errors), (8, 2));
    assert_eq!(counts[1].mean_latency(), Some(Duration::from_millis(5)));
    assert!(report(&place, CANARY, Observation::Failed, later).is_some());
}

#[test]
fn an_output_that_is_not_finite_needs_no_statistics() {
    let place = Place::new(None);
    let fields = json!({"targets": [{"model": "stable", "weight": 1}, {"model": "canary", "weight": 1}],
                        "guard": {"max_non_finite": 1}});
    place.put("chat", &split(1, 0), AliasRule::Always).expect("put");
    place.put("chat", &form(fields), AliasRule::Always).expect("put");
    let now = Instant::now();
    assert!(report(&place, CANARY, Observation::NonFinite, now).is_none(), "one is allowed");
    assert!(report(&place, CANARY, Observation::Failed, now).is_none());
    let trip = report(&place, CANARY, Observation::NonFinite, now).expect("two are not");
    assert_eq!(trip.target.to_string(), "canary");
}

#[test]
fn an_alias_without_a_past_goes_on_without_its_failing_target() {
    let place = Place::new(None);
    place.put("chat", &guarded(9, 1), AliasRule::Always).expect("put");
    let now = Instant::now();
    let trips: Vec<_> =
        (0..9).filter_map(|_| report(&place, CANARY, Observation::Failed, now)).collect();
    let flipped = place.flip(&trips[0]).expect("the rest");
    assert_eq!(flipped.form(), &guarded(9, 0));
    // What a guard has left does not flip again.
    for _ in 0..30 {
        assert!(report(&place, STABLE, Observation::Failed, now).is_none());
    }
}

#[test]
fn a_change_in_between_is_not_taken_back() {
    let place = Place::new(None);
    place.put("chat", &split(1, 0), AliasRule::Always).expect("put");
    place.put("chat", &guarded(9, 1), AliasRule::Always).expect("put");
    let now = Instant::now();
    let trips: Vec<_> =
        (0..9).filter_map(|_| report(&place, CANARY, Observation::Failed, now)).collect();
    place.put("chat", &guarded(1, 1), AliasRule::Always).expect("put");
    assert!(place.flip(&trips[0]).is_none());
    assert_eq!(place.form("chat"), Some(guarded(1, 1)));
}

#[test]
fn a_flip_holds_while_the_store_fails_and_is_written_later() {
    let store: Arc<Shelves> = Arc::default();
    let place = Place::new(Some(Arc::clone(&store)));
    place.put("chat", &split(1, 0), AliasRule::Always).expect("put");
    place.put("chat", &guarded(9, 1), AliasRule::Always).expect("put");
    let now = Instant::now();
    let trips: Vec<_> =
        (0..9).filter_map(|_| report(&place, CANARY, Observation::Failed, now)).collect();
    store.broken.store(true, Relaxed);
    assert!(!place.flip(&trips[0]).expect("back").is_durable());
    assert_eq!(place.form("chat"), Some(split(1, 0)));
    store.broken.store(false, Relaxed);
    place.aliases.refresh().expect("a store");
    assert!(place.aliases.get(&name("chat")).expect("an alias").is_durable());
    let there = Place::new(Some(store));
    there.aliases.refresh().expect("a store");
    assert_eq!(there.form("chat"), Some(split(1, 0)));
}

#[test]
fn one_version_is_a_target_of_its_own() {
    let place = Place::new(None);
    let pinned = format!("stable@{}", VersionId([7; 32]));
    let fields =
        json!({"targets": [{"model": "stable", "weight": 1}, {"model": pinned, "weight": 1}]});
    place.put("chat", &form(fields), AliasRule::Always).expect("put");
    assert_eq!(drawn(place.draw("chat", 0.9)), pinned);
    assert!(place.aliases.check_unused(&name("stable")).is_err());
}

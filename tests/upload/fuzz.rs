//! Bytes of any kind: an answer, no panic, nothing left.
use crate::{
    CONFIG, Place, WEIGHTS, config,
    made::{Tar, Zipped, gzip, zip},
    weights,
};
use proptest::{prelude::*, sample::Index, test_runner::TestRunner};
use tar::EntryType;

/// Archives with a bit of everything.
fn seeds() -> Vec<Vec<u8>> {
    let tar = Tar::default()
        .entry(b"a/", EntryType::Directory, b"")
        .pax(EntryType::XGlobalHeader, "comment", "made")
        .pax(EntryType::XHeader, "path", "a/adapter_config.json")
        .file("a/adapter_config.json", &config())
        .entry(b"long", EntryType::GNULongName, b"a/adapter_model.safetensors\0")
        .file("a/adapter_model.safetensors", &weights())
        .file("a/README.md", b"# mine")
        .end();
    let zip = zip(&[
        Zipped::deflated(CONFIG, &config()),
        Zipped::stored(WEIGHTS, &weights()),
        Zipped::deflated("README.md", b"# mine"),
    ]);
    vec![gzip(&tar), tar, zip]
}

/// Changes that keep most of an archive what it was.
#[derive(Clone, Debug)]
enum Change {
    Set(Index, u8),
    Cut(Index),
    Double(Index, u8),
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        match self {
            Self::Set(at, value) => *at.get_mut(bytes) = *value,
            Self::Cut(at) => bytes.truncate(at.index(bytes.len())),
            Self::Double(at, length) => {
                let start = at.index(bytes.len());
                let end = bytes.len().min(start + usize::from(*length));
                let piece = bytes[start..end].to_vec();
                bytes.splice(start..start, piece);
            }
        }
    }
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        6 => (any::<Index>(), any::<u8>()).prop_map(|(at, value)| Change::Set(at, value)),
        1 => any::<Index>().prop_map(Change::Cut),
        1 => (any::<Index>(), any::<u8>()).prop_map(|(at, length)| Change::Double(at, length)),
    ]
}

fn runner(cases: u32) -> TestRunner {
    TestRunner::new(ProptestConfig { cases, ..ProptestConfig::default() })
}

#[test]
fn mutated_archives_never_panic_and_leave_nothing() {
    let place = Place::with_limit(1 << 20);
    let cases = (prop::sample::select(seeds()), prop::collection::vec(change(), 1..12));
    let done = runner(1500).run(&cases, |(mut archive, changes)| {
        for change in &changes {
            change.apply(&mut archive);
        }
        // `whole` looks for what is left.
        let _ = place.whole(&archive);
        Ok(())
    });
    done.expect("answers");
}

/// The headers are where an archive is interesting: bytes set in the first ones, sums made right again.
#[test]
fn tars_with_any_header_never_panic_and_leave_nothing() {
    let place = Place::with_limit(1 << 20);
    let sets = prop::collection::vec((0..512usize, any::<u8>()), 1..6);
    let done = runner(1500).run(&(sets, any::<u8>()), |(sets, kind)| {
        let change = |header: &mut tar::Header| {
            header.set_entry_type(EntryType::new(kind));
            for (at, value) in &sets {
                header.as_mut_bytes()[*at] = *value;
            }
        };
        let tar = Tar::default().changed(CONFIG.as_bytes(), EntryType::Regular, &config(), change);
        let _ = place.whole(&tar.file(WEIGHTS, &weights()).end());
        Ok(())
    });
    done.expect("answers");
}

#[test]
fn random_bytes_never_panic_and_leave_nothing() {
    let place = Place::with_limit(1 << 20);
    let starts = [b"".as_slice(), b"\x1f\x8b\x08\0", b"PK\x03\x04", b"PK\x05\x06", b"GGUF"];
    let bytes = prop::collection::vec(any::<u8>(), 0..2000);
    let done =
        runner(1500).run(&(prop::sample::select(starts.to_vec()), bytes), |(start, bytes)| {
            let _ = place.whole(&[start, &bytes].concat());
            Ok(())
        });
    done.expect("answers");
}

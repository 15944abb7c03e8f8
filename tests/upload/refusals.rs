//! What is refused, with which code, and that the text says what is wrong.
use crate::{
    CONFIG, Place, WEIGHTS, config,
    made::{Tar, Zipped, gzip, zip},
    weights,
};
use tar::EntryType;

fn adapter() -> Tar {
    Tar::default().file(CONFIG, &config()).file(WEIGHTS, &weights())
}

fn zipped(more: Zipped) -> Vec<u8> {
    zip(&[Zipped::stored(CONFIG, &config()), Zipped::stored(WEIGHTS, &weights()), more])
}

fn expect_refused(cases: Vec<(&str, Vec<u8>, &str)>, code: &str) {
    let place = Place::new();
    for (case, bytes, told) in cases {
        let (got, text) = place.refused(case, &bytes);
        assert_eq!(got, code, "{case}: {text}");
        assert!(text.contains(told), "{case}: {text}");
    }
}

#[test]
fn tars_that_an_attacker_would_send_are_refused() {
    let kind = |kind| adapter().entry(b"x", kind, b"").end();
    let name = |name: &[u8]| adapter().entry(name, EntryType::Regular, b"").end();
    let long = |content: &[u8]| adapter().entry(b"long", EntryType::GNULongName, content);
    let pax = |key: &str, value: &str| adapter().pax(EntryType::XHeader, key, value);
    let crowd = (0..5000).fold(adapter(), |tar, number| tar.file(&format!("{number}"), b""));
    let linked = adapter().changed(b"x", EntryType::Symlink, b"", |header| {
        header.set_link_name("/etc/passwd").expect("a name");
    });
    let set_uid = adapter().changed(b"x", EntryType::Regular, b"", |h| h.set_mode(0o4755));
    let cases = vec![
        ("symbolic link", linked.end(), "symbolic link"),
        ("hard link", kind(EntryType::Link), "hard link"),
        ("device", kind(EntryType::Char), "device"),
        ("pipe", kind(EntryType::Fifo), "pipe"),
        ("sparse", kind(EntryType::GNUSparse), "sparse"),
        ("unknown", kind(EntryType::new(b'!')), "unknown kind"),
        ("set-uid", set_uid.end(), "set-uid"),
        ("up", name(b"../adapter_config.json"), "`..`"),
        ("up within", name(b"a/../../b"), "`..`"),
        ("absolute", name(b"/etc/passwd"), "absolute"),
        ("drive", name(b"C:/x"), "absolute"),
        ("backslash", name(b"a\\b"), "backslash"),
        ("newline", name(b"a\nb"), "control"),
        ("not UTF-8", name(b"\xff\xfe"), "UTF-8"),
        ("NUL", long(b"a\0b\0").file("a", b"").end(), "another name"),
        ("twice", adapter().file(CONFIG, b"{}").end(), "twice"),
        ("twice, aside", adapter().file("a", b"").file("./a", b"").end(), "twice"),
        ("twins", adapter().file("ADAPTER_CONFIG.json", b"{}").end(), "case only"),
        ("crowd", crowd.end(), "4096"),
        ("PAX path", pax("path", "adapter.gguf").file("x", b"").end(), "another name"),
        ("PAX path, longer", pax("path", "x.gguf").file("x", b"").end(), "another name"),
        ("PAX size", pax("size", "9").file("x", b"").end(), "two sizes"),
        ("PAX sparse", pax("GNU.sparse.major", "1").file("x", b"").end(), "sparse"),
        ("PAX twice", pax("a", "b").pax(EntryType::XHeader, "a", "b").end(), "several"),
        (
            "PAX for all",
            Tar::default().pax(EntryType::XGlobalHeader, "path", CONFIG).end(),
            "every entry",
        ),
        ("long name", long(b"adapter.gguf").file("x", b"").end(), "another name"),
        ("endless name", long(&[b'x'; 70_000]).end(), "endless"),
    ];
    expect_refused(cases, "unsafe_archive");
}

#[test]
fn zips_that_an_attacker_would_send_are_refused() {
    let mode = |mode| zipped(Zipped { mode, ..Zipped::stored("x", b"") });
    let name = |name: &[u8]| zipped(Zipped { name: name.into(), ..Zipped::stored("", b"x") });
    let crowd: Vec<_> = (0..5000).map(|number| Zipped::stored(&format!("{number}"), b"")).collect();
    let cloaked = Zipped { other_name: Some(b"y".into()), ..Zipped::stored("x", b"") };
    let encrypted = Zipped { flags: 1, ..Zipped::stored(CONFIG, &config()) };
    let mut zip64 = zipped(Zipped::stored("x", b""));
    let end = zip64.len() - 22;
    zip64.splice(end..end, b"PK\x06\x07".iter().copied().chain([0; 16]));
    let cases = vec![
        ("symbolic link", mode(0o120_777), "symbolic link"),
        ("pipe", mode(0o010_644), "pipe"),
        ("device", mode(0o020_644), "device"),
        ("set-uid", mode(0o104_755), "set-uid"),
        ("up", name(b"../x"), "`..`"),
        ("absolute", name(b"/etc/passwd"), "absolute"),
        ("drive", name(b"C:\\x"), "backslash"),
        ("NUL", name(b"a\0b"), "control"),
        ("not UTF-8", name(b"\xff"), "UTF-8"),
        ("twice", zipped(Zipped::stored(CONFIG, b"{}")), "contradicts"),
        ("twins", zipped(Zipped::stored("ADAPTER_CONFIG.json", b"{}")), "case only"),
        ("crowd", zip(&crowd), "5000"),
        ("two names", zipped(cloaked), "contradicts"),
        ("encrypted", zip(&[encrypted, Zipped::stored(WEIGHTS, &weights())]), "encrypted"),
        ("zip64", zip64, "zip64"),
    ];
    expect_refused(cases, "unsafe_archive");
}

#[test]
fn archives_that_are_cut_or_lie_are_refused() {
    let tar = adapter().end();
    let packed = gzip(&tar);
    let whole = zip(&[Zipped::deflated(CONFIG, &config()), Zipped::deflated(WEIGHTS, &weights())]);
    let mut flipped = packed.clone();
    let last = flipped.len() - 5;
    flipped[last] ^= 1;
    let lies = |bytes: u32| {
        let weights = Zipped { bytes, ..Zipped::deflated(WEIGHTS, &weights()) };
        zip(&[Zipped::stored(CONFIG, &config()), weights])
    };
    let wrong = Zipped { sum: 1, ..Zipped::stored(WEIGHTS, &weights()) };
    let odd = Zipped { method: 14, ..Zipped::stored(WEIGHTS, &weights()) };
    let long = Tar::default().changed(CONFIG.as_bytes(), EntryType::Regular, &config(), |header| {
        header.set_size(1 << 19);
    });
    let cases = vec![
        ("cut tar", tar[..3 * 512].to_vec(), "says"),
        ("cut tar.gz", packed[..packed.len() / 2].to_vec(), "broken"),
        ("wrong sum of a gzip", flipped, "broken"),
        ("cut zip", whole[..whole.len() / 2].to_vec(), "broken"),
        ("longer than it says", lies(10), "says"),
        ("shorter than it says", lies(100_000), "says"),
        ("wrong sum", zip(&[Zipped::stored(CONFIG, &config()), wrong]), "checksum"),
        ("odd method", zip(&[Zipped::stored(CONFIG, &config()), odd]), "deflate"),
        ("header that lies", long.end(), "says"),
        ("something behind it", [tar.clone(), b"more".to_vec()].concat(), "follows"),
        ("gzip of something else", gzip(b"hello"), "broken"),
    ];
    expect_refused(cases, "broken_archive");
}

#[test]
fn what_is_no_adapter_is_called_what_it_is() {
    let only = |name: &str| Tar::default().file(name, b"x").end();
    let apart = Tar::default().file("a/adapter_config.json", &config());
    let apart = apart.file("b/adapter_model.safetensors", &weights());
    let several = adapter().file("checkpoint-1/adapter_config.json", &config());
    let both = adapter().file("x.gguf", b"GGUF");
    let two = Tar::default().file("x.gguf", b"GGUF").file("y.gguf", b"GGUF");
    let cases = vec![
        ("nothing", Tar::default().file("README.md", b"").end(), "README.md"),
        ("no weights", only(CONFIG), "no `adapter_model.safetensors`"),
        ("no config", only(WEIGHTS), "no `adapter_config.json`"),
        ("another archive", only("inner.zip"), "`inner.zip`"),
        ("apart", apart.end(), "`a`"),
        ("several", several.end(), "each by itself"),
        ("both forms", both.end(), "GGUF"),
        ("two files", two.end(), "several"),
        ("an endless config", Tar::default().file(CONFIG, &vec![b' '; 2 << 20]).end(), "config"),
        ("an empty zip", zip(&[]), "neither"),
    ];
    expect_refused(cases, "invalid_adapter");
    let pickle = Tar::default().file(CONFIG, &config()).file("adapter_model.bin", b"\x80\x02");
    let torch = zip(&[Zipped::stored("archive/data.pkl", b"\x80\x02")]);
    let cases = vec![
        ("a pickle", pickle.end(), "safe_serialization=True"),
        ("torch.save's own", torch, "safe_serialization=True"),
    ];
    expect_refused(cases, "unsupported_adapter");
    let cases = vec![
        ("nothing", Vec::new(), "empty"),
        ("text", b"hello".to_vec(), "multipart"),
        ("the weights alone", weights(), "without its config"),
        ("the config alone", config(), "JSON"),
        ("a pickle", b"\x80\x02}q\x00.".to_vec(), "pickle"),
    ];
    expect_refused(cases, "unknown_upload_form");
}

#[test]
fn bombs_stop_at_the_limit() {
    let place = Place::with_limit(1 << 20);
    let zeros = vec![0; 80 << 20];
    let honest = Zipped::deflated(WEIGHTS, &zeros);
    let lying = Zipped { bytes: 1000, ..Zipped::deflated(WEIGHTS, &zeros) };
    let aside = Tar::default().file("README.md", &zeros).file(CONFIG, b"{}").end();
    for (case, bomb) in [
        ("a zip", zip(&[honest])),
        ("a zip that lies", zip(&[lying])),
        ("a tar.gz", gzip(&Tar::default().file(WEIGHTS, &zeros).end())),
        ("a tar.gz whose bomb is ignored", gzip(&aside)),
        ("a GGUF file", [b"GGUF".as_slice(), &zeros[..2 << 20]].concat()),
    ] {
        let (code, text) = place.refused(case, &bomb);
        assert_eq!(code, "adapter_too_large", "{case}: {text}");
    }
    // What is beside the adapter in a zip is never inflated.
    let config = Zipped::stored(CONFIG, &config());
    let beside = zip(&[config, Zipped::stored(WEIGHTS, &weights()), Zipped::deflated("x", &zeros)]);
    place.whole(&beside).expect("an adapter");
}

//! What honest programs pack.
use crate::{
    CONFIG, Place, WEIGHTS, config, golden,
    made::{Tar, Zipped, gzip, zip},
    weights,
};
use lorad::adapter::{AdapterFiles, upload::Part};
use std::{fs, process::Command};
use tar::EntryType;
use tempfile::TempDir;

fn expect_layers(read: &AdapterFiles) {
    let AdapterFiles::Peft { config: got_config, weights: got_weights } = read else {
        panic!("{read:?}")
    };
    assert_eq!((&got_config[..], &got_weights[..]), (&config()[..], &weights()[..]));
}

#[test]
fn a_models_config_counts_beside_the_adapter_only() {
    let place = Place::new();
    let config = br#"{"task_type": "SEQ_CLS"}"#;
    let model = br#"{"id2label": {"0": "no", "1": "yes"}}"#;
    let read = |model_at: &str| {
        let tar = Tar::default().file(model_at, model).file("a/adapter_config.json", config);
        place.whole(&tar.file("a/adapter_model.safetensors", &weights()).end()).expect("read")
    };
    let labelled = |files: &AdapterFiles| {
        let AdapterFiles::Peft { config, .. } = files else { panic!("{files:?}") };
        String::from_utf8_lossy(config).contains("yes")
    };
    let (files, warnings) = read("a/config.json");
    assert!(labelled(&files) && warnings.is_empty(), "{warnings:?}");
    for elsewhere in ["config.json", "b/config.json"] {
        let (files, warnings) = read(elsewhere);
        assert!(!labelled(&files), "{elsewhere}");
        assert_eq!(warnings, [format!("ignored in the archive: {elsewhere}")]);
    }
    let parts = [(Part::Config, &config[..]), (Part::ModelConfig, model), (Part::Weights, b"w")];
    assert!(labelled(&place.read(&parts).expect("parts").0));
    let parts = [(Part::Config, &config[..]), (Part::Labels, b"maybe, yes"), (Part::Weights, b"w")];
    assert!(labelled(&place.read(&parts).expect("parts").0));
}

fn plain() -> Tar {
    Tar::default().file(CONFIG, &config()).file(WEIGHTS, &weights())
}

#[test]
fn every_form_is_the_same_adapter() {
    let place = Place::new();
    let tar = plain().end();
    let stored = zip(&[Zipped::stored(CONFIG, &config()), Zipped::stored(WEIGHTS, &weights())]);
    let deflated =
        zip(&[Zipped::deflated(WEIGHTS, &weights()), Zipped::deflated(CONFIG, &config())]);
    for (form, bytes) in
        [("tar", tar.clone()), ("tar.gz", gzip(&tar)), ("zip", stored), ("deflated zip", deflated)]
    {
        let (files, warnings) = place.whole(&bytes).expect(form);
        expect_layers(&files);
        assert!(warnings.is_empty(), "{form}: {warnings:?}");
    }
    let parts = [(Part::Weights, &weights()[..]), (Part::Config, &config()[..])];
    expect_layers(&place.read(&parts).expect("parts").0);
}

#[test]
fn a_gguf_file_is_one_as_it_is_as_a_part_and_in_an_archive() {
    let place = Place::new();
    let gguf = golden("gguf/lora/llama-layers-f32.gguf");
    let packed = Tar::default().file("mine/mine-f32.gguf", &gguf).end();
    for (part, bytes) in [(Part::Whole, &gguf), (Part::Gguf, &gguf), (Part::Whole, &gzip(&packed))]
    {
        let (files, _) = place.read(&[(part, bytes)]).expect("a GGUF adapter");
        let AdapterFiles::Gguf(read) = files else { panic!("{files:?}") };
        assert_eq!(read, gguf);
    }
}

#[test]
fn a_directory_with_all_that_training_leaves_is_read_for_its_adapter_alone() {
    let place = Place::new();
    let directory = |tar: Tar, name: &str| tar.entry(name.as_bytes(), EntryType::Directory, b"");
    let tar = directory(Tar::default(), "./")
        .file("./checkpoint-100/README.md", b"# mine")
        .file("./checkpoint-100/._adapter_config.json", b"macOS")
        .file("./checkpoint-100/adapter_config.json", &config())
        .file("./checkpoint-100/training_args.bin", b"\x80\x02}q")
        .file("./checkpoint-100/adapter_model.safetensors", &weights());
    let tar = (0..9).fold(tar, |tar, number| tar.file(&format!("aside/{number}.txt"), b"x"));
    let (files, warnings) = place.whole(&gzip(&tar.end())).expect("an adapter");
    expect_layers(&files);
    let [warning] = &warnings[..] else { panic!("{warnings:?}") };
    assert!(warning.contains("README.md") && warning.ends_with("and 4 more"), "{warning}");
}

#[test]
fn what_tar_and_zip_and_python_make_is_read() {
    let place = Place::new();
    let made = TempDir::new().expect("a directory");
    let deep = "d".repeat(60);
    let inner = made.path().join("modèle").join(&deep).join(&deep);
    fs::create_dir_all(&inner).expect("made");
    fs::write(inner.join(CONFIG), config()).expect("written");
    fs::write(inner.join(WEIGHTS), weights()).expect("written");
    fs::write(inner.join("README.md"), "# mine").expect("written");
    let python = |code: &'static str| vec!["python3", "-c", code];
    let mut tried = 0;
    for (file, command) in [
        ("gnu.tgz", vec!["tar", "czf", "gnu.tgz", "modèle"]),
        ("pax.tar", vec!["tar", "cf", "pax.tar", "--format=pax", "modèle"]),
        ("ustar.tar", vec!["tar", "cf", "ustar.tar", "--format=ustar", "modèle"]),
        ("a.zip", vec!["zip", "-qr", "a.zip", "modèle"]),
        ("p.tar.gz", python("import shutil; shutil.make_archive('p', 'gztar', '.', 'modèle')")),
        ("p.zip", python("import shutil; shutil.make_archive('p', 'zip', '.', 'modèle')")),
    ] {
        let done = Command::new(command[0]).args(&command[1..]).current_dir(made.path()).output();
        if !done.is_ok_and(|done| done.status.success()) {
            // A machine without that program.
            continue;
        }
        tried += 1;
        let bytes = fs::read(made.path().join(file)).expect("made");
        let (files, warnings) = place.whole(&bytes).unwrap_or_else(|e| panic!("{file}: {e}"));
        expect_layers(&files);
        assert_eq!(warnings.len(), 1, "{file}: {warnings:?}");
    }
    assert!(tried > 0, "no program to try");
}

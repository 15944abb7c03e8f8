//! Adapter files: what is served is read exactly, everything else is refused with a reason, garbage never panics.
#[path = "../adapter_maker/mod.rs"]
mod adapter_maker;
mod convert;
mod encoders;
mod family;
mod fixtures;
mod gguf;
mod heads;
mod labels;
mod made;
mod made_encoders;
mod refusals;
mod tied;

use adapter_maker::{Maker, base::MadeBase, key, small_base, small_layout, values};
use half::{bf16, f16};
use lorad::{
    adapter::{
        AdapterFiles, AdapterLimits, ParsedAdapter,
        format::{self, CONFIG_FILE, WEIGHTS_FILE},
    },
    error::{Classified, ErrorKind},
    lora::{FrozenBase, LinearDelta, Projection, Site},
};
use proptest::prelude::*;
use safetensors::Dtype;
use serde_json::json;
use std::{
    fs,
    process::{Command, Stdio},
};

const Q: &str = "self_attn.q_proj";

fn parse(maker: &Maker) -> Result<ParsedAdapter, String> {
    parse_on(&MadeBase::new(small_layout()), maker)
}

fn parse_on(base: &dyn FrozenBase, maker: &Maker) -> Result<ParsedAdapter, String> {
    parse_files(&maker.files(), base)
}

fn parse_files(files: &AdapterFiles, base: &dyn FrozenBase) -> Result<ParsedAdapter, String> {
    format::parse(files, base, &AdapterLimits::default()).map_err(|error| {
        assert!(matches!(error.kind(), ErrorKind::InvalidRequest | ErrorKind::TooLarge), "{error}");
        error.to_string()
    })
}

fn refused(maker: &Maker) -> String {
    parse(maker).expect_err("refused")
}

fn refused_on(base: &dyn FrozenBase, maker: &Maker) -> String {
    parse_on(base, maker).expect_err("refused")
}

/// `b` as PEFT has it, `[out, rank]` → `[rank, out]` times `scaling`.
fn turned(b: &[f32], rank: usize, scaling: f32) -> Vec<f32> {
    (0..rank).flat_map(|r| b.iter().skip(r).step_by(rank).map(move |v| v * scaling)).collect()
}

#[test]
fn factors_are_the_files_with_the_scaling_in_b() {
    let parsed = parse(&Maker::new(1)).expect("served");
    let site = Site::block(1, Projection::Q);
    let pair = parsed.weights.at(site).and_then(|delta| delta.low_rank.as_ref()).expect("a pair");
    let flat =
        |t: &candle_core::Tensor| t.flatten_all().and_then(|t| t.to_vec1::<f32>()).expect("f32");
    assert_eq!(pair.rows().expect("rows").0.dims(), [2, 8]);
    assert_eq!(flat(pair.rows().expect("rows").0), values(16, 1));
    assert_eq!(flat(pair.rows().expect("rows").1), turned(&values(16, 2), 2, 4.0 / 2.0));
    assert_eq!(parsed.weights.len(), 4);
    assert!(parsed.weights.at(Site::block(1, Projection::K)).is_none());
}

#[test]
fn half_precision_files_give_the_same_factors() {
    let wanted = parse(&Maker::new(1)).expect("f32");
    for dtype in [Dtype::F16, Dtype::BF16] {
        let mut maker = Maker::new(1);
        for (found, _, bytes) in maker.tensors.values_mut() {
            *found = dtype;
            let values = bytes.as_chunks().0.iter().map(|c| f32::from_le_bytes(*c));
            *bytes = match dtype {
                Dtype::F16 => values.flat_map(|v| f16::from_f32(v).to_le_bytes()).collect(),
                _ => values.flat_map(|v| bf16::from_f32(v).to_le_bytes()).collect(),
            };
        }
        let parsed = parse(&maker).expect("half precision");
        for ((site, pair), (_, same)) in parsed.weights.sites().zip(wanted.weights.sites()) {
            let flat = |t: &candle_core::Tensor| t.flatten_all().and_then(|t| t.to_vec1::<f32>());
            let b = |delta: &LinearDelta<_>| {
                flat(delta.low_rank.as_ref().expect("a pair").rows().expect("rows").1)
            };
            assert_eq!(b(pair).expect("f32"), b(same).expect("f32"), "{site}");
        }
        assert_eq!(parsed.describe().expect("numbers").dtypes, [format!("{dtype:?}")]);
    }
}

#[test]
fn patterns_give_each_layer_its_own_rank_and_alpha() {
    let mut maker = Maker::new(1)
        .with("rank_pattern", json!({"layers.1.self_attn.q_proj": 3}))
        .with("alpha_pattern", json!({".*q_proj": 9}))
        .with("use_rslora", json!(true));
    maker.add(1, Q, [3, 8, 8], 5);
    let parsed = parse(&maker).expect("served");
    let site = Site::block(1, Projection::Q);
    let pair = parsed.weights.at(site).and_then(|delta| delta.low_rank.as_ref()).expect("a pair");
    let b =
        pair.rows().expect("rows").1.flatten_all().and_then(|t| t.to_vec1::<f32>()).expect("f32");
    assert_eq!(b, turned(&values(24, 6), 3, (9.0 / 3f64.sqrt()) as f32));
    assert_eq!(parsed.describe().expect("numbers").ranks, [2, 3]);
}

#[test]
fn only_the_layers_to_transform_need_tensors() {
    let mut maker = Maker::new(1).with("layers_to_transform", json!([1]));
    assert!(refused(&maker).contains("does not select"));
    maker.tensors.retain(|name, _| name.contains("layers.1."));
    assert_eq!(parse(&maker).expect("served").weights.len(), 2);
}

#[test]
fn an_expression_and_all_linear_select_modules() {
    let regex = json!(r"model\.layers\.\d+\.(self_attn\.q|mlp\.down)_proj");
    assert_eq!(
        parse(&Maker::new(1).with("target_modules", regex)).expect("served").weights.len(),
        4
    );
    let all = Maker::new(1).with("target_modules", json!("all-linear"));
    assert!(
        refused(&all).contains("10 layers that have no tensors (model.layers.0.self_attn.k_proj")
    );
    let all =
        all.with("exclude_modules", json!(["k_proj", "v_proj", "o_proj", "gate_proj", "up_proj"]));
    assert_eq!(parse(&all).expect("served").weights.len(), 4);
}

#[test]
fn tensors_that_do_not_make_an_adapter_are_refused_by_name() {
    let q_a = key(0, Q, 'A');
    let q_b = key(0, Q, 'B');
    let bend = |change: &dyn Fn(&mut Maker)| {
        let mut maker = Maker::new(1);
        change(&mut maker);
        refused(&maker)
    };
    let cases = [
        (bend(&|m| drop(m.tensors.remove(&q_b))), "has no lora_B"),
        (bend(&|m| drop(m.tensors.remove(&q_a))), "has no lora_A"),
        (
            bend(&|m| m.tensors.retain(|name, _| !name.contains("0.self_attn"))),
            "layers.0.self_attn.q_proj",
        ),
        (bend(&|m| m.tensors.clear()), "no tensors"),
        (bend(&|m| m.set(&q_a, &[2, 7], &values(14, 1))), "[2, 7]; this model and"),
        (bend(&|m| m.set(&q_a, &[16], &values(16, 1))), "is a matrix"),
        (bend(&|m| m.set(&q_a, &[0, 8], &[])), "is a matrix"),
        (bend(&|m| m.add(0, Q, [3, 8, 8], 1)), "[3, 8]; this model and"),
        (
            bend(&|m| m.add(9, Q, [2, 8, 8], 1)),
            "layers.9.self_attn.q_proj, which the model does not have",
        ),
        (bend(&|m| m.add(0, "self_attn.k_proj", [2, 8, 4], 1)), "does not select"),
        (bend(&|m| m.set(&q_a, &[2, 8], &[f32::NAN; 16])), "NaN at element 0"),
        (bend(&|m| m.set(&q_b, &[8, 2], &[f32::NEG_INFINITY; 16])), "-inf"),
        (bend(&|m| m.set(&q_b, &[8, 2], &[f32::MAX; 16])), "scaling"),
        (
            bend(&|m| m.set(&q_a.replace("weight", "default.weight"), &[2, 8], &[0.0; 16])),
            "same factor",
        ),
        (bend(&|m| m.set("base_model.model.lm_head.weight", &[1], &[0.0])), "should be a matrix"),
        (bend(&|m| m.set("lm_head\n\u{202e}", &[1], &[0.0])), r"lm_head\n\u{202e}"),
    ];
    for (error, reason) in cases {
        assert!(error.contains(reason), "`{reason}` is not in: {error}");
        assert!(error.len() < 800, "{error}");
    }
}

#[test]
fn an_unknown_element_type_is_named() {
    let mut maker = Maker::new(1);
    for (dtype, shape, bytes) in maker.tensors.values_mut() {
        *dtype = Dtype::F64;
        *bytes = vec![0; shape.iter().product::<usize>() * 8];
    }
    assert!(refused(&maker).contains("is F64; adapters are F32, F16 or BF16"));
}

#[test]
fn limits_hold() {
    let files = Maker::new(1).files();
    let limits = AdapterLimits { max_adapter_bytes: files.bytes() - 1, ..Default::default() };
    let error = format::parse(&files, small_base().as_ref(), &limits).expect_err("too large");
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    let limits = AdapterLimits { max_adapter_rank: 1, ..Default::default() };
    let error = format::parse(&files, small_base().as_ref(), &limits).expect_err("rank");
    assert!(error.to_string().contains("--max-adapter-rank"), "{error}");
}

#[test]
fn without_a_model_the_tensors_give_the_shapes() {
    let about =
        format::check(&Maker::new(1).files(), None, &AdapterLimits::default()).expect("whole");
    assert_eq!((about.sites, about.layers), (4, 2));
    let mut odd = Maker::new(1);
    odd.tensors.remove(&key(0, Q, 'B'));
    assert!(format::check(&odd.files(), None, &AdapterLimits::default()).is_err());
}

#[test]
fn directories_are_read_without_following_pickles() {
    let directory = tempfile::tempdir().expect("a directory");
    let read = || AdapterFiles::read(directory.path(), &AdapterLimits::default());
    assert!(read().expect_err("empty").to_string().contains(CONFIG_FILE));
    let files = Maker::new(1).files();
    let [(_, config), (_, weights)] = files.named()[..] else { unreachable!("PEFT's form") };
    fs::write(directory.path().join(CONFIG_FILE), config).expect("written");
    assert!(read().expect_err("no weights").to_string().contains(WEIGHTS_FILE));
    fs::write(directory.path().join("adapter_model.bin"), b"\x80\x02}q\x00.").expect("written");
    assert!(read().expect_err("pickle").to_string().contains("pickle"));
    fs::create_dir(directory.path().join(WEIGHTS_FILE)).expect("made");
    assert!(read().expect_err("a directory").to_string().contains("not a regular file"));
    fs::remove_dir(directory.path().join(WEIGHTS_FILE)).expect("removed");
    fs::write(directory.path().join(WEIGHTS_FILE), weights).expect("written");
    assert_eq!(read().expect("both").version(), files.version());
}

/// An adapter with most parts of the family.
fn rich() -> Maker {
    let mut maker = Maker::new(3)
        .with("use_dora", json!(true))
        .with("trainable_token_indices", json!([5, 2]))
        .with("modules_to_save", json!(["model.norm", "k_proj"]));
    for layer in 0..2 {
        for path in ["self_attn.q_proj", "mlp.down_proj"] {
            let path = format!("model.layers.{layer}.{path}");
            maker.set(&made::named(&path, "lora_magnitude_vector"), &[8], &values(8, 4));
        }
        let path = format!("model.layers.{layer}.self_attn.k_proj");
        maker.set(&made::named(&path, "weight"), &[4, 8], &values(32, 5));
    }
    maker.set(&made::named("model.norm", "weight"), &[8], &values(8, 6));
    let rows = made::named(made::TABLE, "token_adapter.trainable_tokens_delta");
    maker.set(&rows, &[2, 8], &values(16, 7));
    maker
}

fn is_finite(tensor: &candle_core::Tensor) -> bool {
    made::flat(tensor).iter().all(|value| value.is_finite())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn bent_files_never_panic(
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), any::<bool>()), 1..8),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let files = rich().files();
        let [(_, config), (_, weights)] = files.named()[..] else { unreachable!("PEFT's form") };
        let (mut config, mut weights) = (config.to_vec(), weights.to_vec());
        for (at, byte, in_config) in flips {
            let bytes = if in_config { &mut config } else { &mut weights };
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Some(cut) = cut {
            weights.truncate(cut.index(weights.len()));
        }
        let bent = AdapterFiles::Peft { config: config.into(), weights: weights.into() };
        if let Ok(parsed) = parse_files(&bent, small_base().as_ref()) {
            // Whatever was let through is a whole adapter with finite numbers.
            for (site, delta) in parsed.weights.sites() {
                let shape = small_layout().shape(site).expect("a site of the model");
                if let Some(pair) = &delta.low_rank {
                    let found = (pair.in_features(), pair.out_features());
                    prop_assert_eq!(found, (shape.in_features, shape.out_features));
                    prop_assert!(is_finite(pair.rows().expect("rows").0) && is_finite(pair.rows().expect("rows").1));
                }
                let vectors = delta.gain.iter().chain(&delta.shift);
                prop_assert!(vectors.chain(delta.trained.iter().map(|t| &t.weight)).all(is_finite));
            }
            prop_assert!(parsed.weights.norms().all(|(_, weight)| is_finite(weight)));
            let rows = parsed.weights.embedding().and_then(|delta| delta.trained.as_ref());
            prop_assert!(rows.is_none_or(|rows| is_finite(&rows.weight)));
        }
    }

    #[test]
    fn any_config_is_an_answer(field in "[a-z_]{1,20}", text in "\\PC{0,30}", number in any::<f64>()) {
        for value in [json!(text), json!(number), json!([text]), json!({text.clone(): number})] {
            let _ = parse(&Maker::new(1).with(&field, value.clone()));
            for known in ["r", "lora_alpha", "target_modules", "rank_pattern", "layers_to_transform", "exclude_modules",
                "use_dora", "modules_to_save", "trainable_token_indices", "bias", "alora_invocation_tokens"] {
                let _ = parse(&Maker::new(1).with(known, value.clone()));
            }
        }
    }
}

#[test]
fn a_switch_in_the_environment_is_on_or_off_in_any_words() {
    let directory = tempfile::TempDir::new().expect("a directory");
    let files = Maker::new(1).with("use_unheard_of", json!(true)).files();
    for (name, bytes) in files.named() {
        fs::write(directory.path().join(name), bytes).expect("written");
    }
    for (value, served) in [("1", true), ("yes", true), ("true", true), ("0", false), ("", false)] {
        let mut lorad = Command::new(env!("CARGO_BIN_EXE_lorad"));
        let lorad = lorad.arg("inspect").arg(directory.path());
        let lorad =
            lorad.env("LORAD_ALLOW_UNKNOWN_ADAPTER_FIELDS", value).env_remove("LORAD_MODEL");
        let status = lorad.stdout(Stdio::null()).stderr(Stdio::null()).status().expect("it runs");
        assert_eq!(status.code(), Some(i32::from(!served)), "{value:?}");
    }
}

//! GGUF files of every type give the logits and the tokens that transformers computes from the same weights.
use lorad::{
    kernel::{CpuKernels, Kernels, KvCache, KvChoice, KvShape, Precision},
    lora::LoraSlots,
    model::{
        ForwardBatch, LoadOptions, LoadedModel, ModelError, ModelSource, Progress, StepContext,
        load,
    },
};
use safetensors::SafeTensors;
use serde_json::Value;
use std::{
    env, fs,
    path::{Path, PathBuf},
};

/// Two f32 programs differ by sums in another order, 1e-5 to 1e-4 here; a wrong constant shows as 0.01 or more.
const TOLERANCE: f32 = 1e-3;
const BLOCK: usize = 8;
const BLOCKS: usize = 8;
const MAX_POSITIONS: usize = BLOCK * BLOCKS;

fn golden(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/gguf").join(name)
}

fn load_file(name: &str, kernels: &dyn Kernels) -> LoadedModel {
    try_load(&golden(name), kernels).unwrap_or_else(|error| panic!("{error}"))
}

fn try_load(path: &Path, kernels: &dyn Kernels) -> Result<LoadedModel, ModelError> {
    let source = ModelSource::parse(path.to_str().expect("a plain path"))?;
    let options = LoadOptions {
        precision: Precision::F32,
        kv_precision: KvChoice::Auto,
        max_positions: Some(MAX_POSITIONS),
        kv_cache_bytes: None,
        pooling: None,
        progress: Progress::Hidden,
    };
    load(&source, kernels, &options)
}

/// One sequence in a cache of its own.
struct Run<'a> {
    model: &'a LoadedModel,
    kernels: &'a dyn Kernels,
    kv: KvCache,
    computed: usize,
}

impl<'a> Run<'a> {
    fn new(model: &'a LoadedModel, kernels: &'a dyn Kernels) -> Self {
        let dims = model.lm.kv_dims();
        let shape = KvShape {
            layers: dims.layers,
            blocks: BLOCKS,
            block_size: BLOCK,
            kv_heads: dims.kv_heads,
            head_dim: dims.head_dim,
            precision: dims.precision,
        };
        Self { model, kernels, kv: kernels.new_kv(shape).expect("a small cache"), computed: 0 }
    }

    /// The logits of every one of `tokens`, which follow what was computed.
    fn step(&mut self, tokens: &[u32]) -> Vec<f32> {
        let positions: Vec<u32> =
            (self.computed..self.computed + tokens.len()).map(|at| at as u32).collect();
        self.computed += tokens.len();
        let rows = tokens.len() as u32;
        let batch = ForwardBatch {
            token_ids: tokens.to_vec(),
            slot_mapping: positions.clone(),
            positions,
            block_tables: (0..BLOCKS as u32).collect(),
            block_starts: vec![0, BLOCKS as u32],
            query_starts: vec![0, rows],
            context_lens: vec![self.computed as u32],
            logit_rows: (0..rows).collect(),
            ..ForwardBatch::default()
        };
        let (kernels, lora) = (
            self.kernels,
            &LoraSlots::new(1, self.model.lm.precision(), self.model.lm.lora_layout()),
        );
        let context = StepContext { batch: &batch, kv: &mut self.kv, lora, kernels };
        let logits = self.model.lm.forward(context).expect("the batch is sound").logits;
        self.kernels.read(&logits).expect("host memory").into_owned()
    }
}

fn greatest(logits: &[f32]) -> u32 {
    let best = logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
    best.expect("a vocabulary").0 as u32
}

fn f32s(tensor: &[u8]) -> Vec<f32> {
    let (values, _) = tensor.as_chunks::<4>();
    values.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

fn ids(value: &Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).expect("token ids")
}

#[test]
fn every_type_and_family_gives_the_golden_logits_and_tokens() {
    let kernels = CpuKernels::new(1).expect("a processor");
    let file = |name| fs::read(golden(name)).expect("the fixtures are complete");
    let cases: Vec<Value> = serde_json::from_slice(&file("golden.json")).expect("JSON");
    let tensors = file("golden.safetensors");
    let tensors = SafeTensors::deserialize(&tensors).expect("safetensors");
    for case in &cases {
        let (name, key) = (case["file"].as_str().unwrap(), case["logits_key"].as_str().unwrap());
        let model = load_file(name, &kernels);
        let mut run = Run::new(&model, &kernels);
        let prompt = ids(&case["prompt"]);
        let logits = run.step(&prompt);
        let expected = f32s(tensors.tensor(key).expect("the case's logits").data());
        assert_eq!(logits.len(), expected.len(), "{key}");
        for (i, (got, want)) in logits.iter().zip(&expected).enumerate() {
            assert!((got - want).abs() <= TOLERANCE, "{key}: value {i} is {got}, expected {want}");
        }
        let mut next = greatest(&logits[logits.len() - model.lm.vocab_size()..]);
        let greedy = ids(&case["greedy"]);
        let mut answer = vec![next];
        while answer.len() < greedy.len() {
            next = greatest(&run.step(&[next]));
            answer.push(next);
        }
        assert_eq!(answer, greedy, "{key}");
    }
}

#[test]
fn a_file_is_named_by_its_stem_and_describes_itself() {
    let kernels = CpuKernels::new(1).expect("a processor");
    let model = load_file("qwen3-q8_0.gguf", &kernels);
    assert_eq!(model.facts.name, "qwen3-q8_0");
    assert_eq!(model.facts.architecture, "Qwen3ForCausalLM");
    assert!(model.text.chat_template.is_some());
}

#[test]
fn a_file_that_lost_its_end_is_refused_by_name() {
    let whole = fs::read(golden("llama-q8_0.gguf")).expect("the fixtures are complete");
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("cut.gguf");
    fs::write(&path, &whole[..whole.len() / 2]).expect("a small file");
    let kernels = CpuKernels::new(1).expect("a processor");
    let error = try_load(&path, &kernels).err().expect("half a file").to_string();
    assert!(error.contains("cut.gguf") && error.contains("fetch it again"), "{error}");
}

/// `SmolLM2-135M-Instruct` as a GGUF file and as a directory, where `LORAD_TEST_GGUF` and `LORAD_TEST_MODEL` say.
#[expect(clippy::print_stderr, reason = "a test that did not run must say so")]
fn smollm2() -> Option<(PathBuf, PathBuf)> {
    let named = |variable| env::var_os(variable).map(PathBuf::from).filter(|path| path.exists());
    let both = named("LORAD_TEST_GGUF").zip(named("LORAD_TEST_MODEL"));
    if both.is_none() {
        eprintln!("skipped: LORAD_TEST_GGUF and LORAD_TEST_MODEL do not name SmolLM2");
    }
    both
}

/// Texts of every script, space and number, from pieces that tokenizers treat in their own ways.
fn texts() -> Vec<String> {
    const PIECES: [&str; 24] = [
        "Hello",
        " world",
        "  ",
        "\n",
        "\n\n",
        "\t",
        "\r\n",
        "1234567",
        "3.14",
        "'s",
        "'LL",
        "é",
        "e\u{301}",
        "日本語",
        "русский",
        "😀",
        "👩\u{200d}🚀",
        "<|im_start|>",
        "<|im_end|>",
        "</s>",
        "_x",
        "!?",
        "\u{a0}",
        "ſ½Ⅷ٣",
    ];
    let piece = |n: usize| PIECES[n % PIECES.len()];
    // Strides that share no factor with the count walk through all neighbourhoods.
    let mixed = (0..PIECES.len() * 20).map(|n| {
        let stride = [1, 5, 7, 11, 13][n % 5];
        (0..=n % 9).map(|i| piece(n + i * stride)).collect()
    });
    mixed.chain(PIECES.map(str::to_owned)).collect()
}

#[test]
fn smollm2_from_a_gguf_file_is_the_model_of_its_directory() {
    let Some((file, directory)) = smollm2() else { return };
    let kernels = CpuKernels::new(2).expect("a processor");
    let [gguf, hub] =
        [file, directory].map(|path| try_load(&path, &kernels).unwrap_or_else(|e| panic!("{e}")));
    for text in texts() {
        let ids = |model: &LoadedModel| {
            model.text.tokenizer.encode(text.as_str(), false).expect("any text").get_ids().to_vec()
        };
        let tokens = ids(&gguf);
        assert_eq!(tokens, ids(&hub), "{text:?}");
        let decode = |model: &LoadedModel| model.text.tokenizer.decode(&tokens, true);
        assert_eq!(decode(&gguf).expect("tokens"), decode(&hub).expect("tokens"), "{text:?}");
    }
    assert_eq!(gguf.text.chat_template, hub.text.chat_template);
    for name in ["bos_token", "eos_token"] {
        assert_eq!(gguf.text.special_tokens[name], hub.text.special_tokens[name]);
    }
    assert_eq!(gguf.facts.parameters, hub.facts.parameters);
    let prompt = gguf.text.tokenizer.encode("The capital of France is", false).expect("a text");
    let logits = |model| Run::new(model, &kernels).step(prompt.get_ids());
    let (a, b) = (logits(&gguf), logits(&hub));
    let mean = a.iter().zip(&b).map(|(a, b)| (a - b).abs()).sum::<f32>() / a.len() as f32;
    // The directory's weights are the file's, rounded once to bf16: 8 bits, on logits of size 10.
    assert!(mean < 0.1, "logits differ by {mean} in the mean");
    let vocab = gguf.lm.vocab_size();
    assert_eq!(greatest(&a[a.len() - vocab..]), greatest(&b[b.len() - vocab..]));
}

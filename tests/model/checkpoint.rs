//! What is read from a model directory, and how what is wrong with one is named.
use crate::{
    copies::{Copy, assert_says, logits, options},
    harness::repository,
};
use lorad::{
    kernel::Reference,
    model::{ModelSource, load},
};
use safetensors::Dtype;
use serde_json::json;

const BASE: &str = "tests/golden/llama_tied";
const EMBEDDING: &str = "model.embed_tokens.weight";
const QUERY: &str = "model.layers.1.self_attn.q_proj.weight";

#[test]
fn tensors_may_be_named_without_the_prefix() {
    let bare = Copy::with_tensors(|tensors| {
        let named = std::mem::take(tensors).into_iter();
        *tensors = named.map(|(name, t)| (name.replacen("model.", "", 1), t)).collect();
    });
    assert_eq!(bare.logits(), logits(&repository(BASE)));
}

#[test]
fn shards_give_what_one_file_gives() {
    let copy = Copy::new();
    let tensors = copy.tensors();
    let names: Vec<_> = tensors.keys().collect();
    let mut map = serde_json::Map::new();
    for (i, half) in names.chunks(names.len().div_ceil(2)).enumerate() {
        let file = format!("model-{}-of-2.safetensors", i + 1);
        let part = half.iter().map(|name| ((*name).clone(), tensors[*name].clone())).collect();
        copy.write_tensors(&file, &part);
        map.extend(half.iter().map(|name| ((*name).clone(), json!(file))));
    }
    copy.remove("model.safetensors");
    copy.write("model.safetensors.index.json", json!({"weight_map": map}).to_string());
    assert_eq!(copy.logits(), logits(&repository(BASE)));
    copy.remove("model-2-of-2.safetensors");
    assert_says(&copy.error(), &["model-2-of-2.safetensors", "index"]);
}

#[test]
fn an_index_cannot_lead_out_of_its_directory() {
    for file in ["../model.safetensors", "/etc/x.safetensors", "weights.bin"] {
        let copy = Copy::new();
        copy.remove("model.safetensors");
        let index = json!({"weight_map": {EMBEDDING: file}});
        copy.write("model.safetensors.index.json", index.to_string());
        assert_says(&copy.error(), &["model.safetensors.index.json", file]);
    }
}

#[test]
fn a_missing_tensor_is_named() {
    let copy = Copy::with_tensors(|tensors| {
        tensors.remove(QUERY);
    });
    assert_says(&copy.error(), &[QUERY, "missing"]);
}

#[test]
fn a_tensor_without_a_place_is_named() {
    let bias = "model.layers.0.self_attn.q_proj.bias";
    let copy = Copy::with_tensors(|tensors| {
        tensors.insert(bias.to_owned(), (Dtype::F32, vec![1], vec![0; 4]));
    });
    assert_says(&copy.error(), &[bias, "no place"]);
}

#[test]
fn buffers_that_old_versions_saved_are_no_matter() {
    let name = "model.layers.0.self_attn.rotary_emb.inv_freq";
    let copy = Copy::with_tensors(|tensors| {
        tensors.insert(name.to_owned(), (Dtype::F32, vec![1], vec![0; 4]));
    });
    assert_eq!(copy.logits(), logits(&repository(BASE)));
}

#[test]
fn a_wrong_shape_is_told_with_both_shapes() {
    let copy = Copy::with_tensors(|tensors| {
        tensors.get_mut(QUERY).unwrap().1.reverse();
        tensors.get_mut(EMBEDDING).unwrap().1.reverse();
    });
    assert_says(&copy.error(), &[EMBEDDING, "[64, ", ", 64]"]);
}

#[test]
fn a_dtype_that_is_not_read_is_named() {
    let copy = Copy::with_tensors(|tensors| tensors.get_mut(QUERY).unwrap().0 = Dtype::I32);
    assert_says(&copy.error(), &[QUERY, "I32", "BF16"]);
}

#[test]
fn a_copy_of_the_tied_head_may_be_stored_but_not_another_head() {
    let with_head = |scale: bool| {
        Copy::with_tensors(|tensors| {
            let mut head = tensors[EMBEDDING].clone();
            if scale {
                head.2[3] ^= 0x40;
            }
            tensors.insert("lm_head.weight".to_owned(), head);
        })
    };
    assert_eq!(with_head(false).logits(), logits(&repository(BASE)));
    assert_says(&with_head(true).error(), &["lm_head.weight", "tie_word_embeddings"]);
}

#[test]
fn a_file_cut_short_is_named() {
    let copy = Copy::new();
    let whole = copy.read("model.safetensors");
    for length in [0, 4, 8, 100, whole.len() - 1] {
        copy.write("model.safetensors", &whole[..length]);
        assert_says(&copy.error(), &["model.safetensors", "fetch it again"]);
    }
}

#[test]
fn a_missing_file_is_named_with_what_to_do() {
    for (file, words) in [
        ("config.json", "tokenizer.json"),
        ("tokenizer.json", "save_pretrained"),
        ("model.safetensors", "fetch"),
    ] {
        let copy = Copy::new();
        copy.remove(file);
        assert_says(&copy.error(), &[file, "does not exist", words]);
    }
    let pickled = Copy::new();
    pickled.remove("model.safetensors");
    pickled.write("pytorch_model.bin", "");
    assert_says(&pickled.error(), &["pytorch_model.bin", "save_pretrained"]);
}

#[test]
fn files_that_are_not_what_they_say_are_named() {
    for file in ["config.json", "tokenizer.json", "tokenizer_config.json"] {
        for content in ["", "{", "\u{0}", "[1]"] {
            let copy = Copy::new();
            copy.write(file, content);
            // An array is JSON, and settings that say nothing are no error.
            if (file, content) != ("tokenizer_config.json", "[1]") {
                assert_says(&copy.error(), &[file]);
            }
        }
    }
}

#[test]
fn a_configuration_that_is_not_the_weights_is_refused() {
    for (key, value, words) in [
        ("num_hidden_layers", json!(4), "model.layers.3."),
        ("num_hidden_layers", json!(1), "model.layers.1."),
        ("hidden_size", json!(128), EMBEDDING),
        ("vocab_size", json!(100), EMBEDDING),
        ("attention_bias", json!(true), ".bias"),
        ("tie_word_embeddings", json!(false), "lm_head.weight"),
    ] {
        assert_says(&Copy::with_config(key, value).error(), &[words]);
    }
}

#[test]
fn the_longest_sequence_can_be_shortened_but_not_stretched() {
    let source = ModelSource::Directory(repository(BASE));
    let positions =
        |wanted| load(&source, &Reference, &options(wanted)).map(|m| m.facts.max_positions);
    assert_eq!(positions(None).unwrap(), 256);
    assert_eq!(positions(Some(100)).unwrap(), 100);
    for wrong in [0, 257] {
        let message = positions(Some(wrong)).unwrap_err().to_string();
        assert_says(&message, &["max_position_embeddings", "256", "--max-model-len"]);
    }
}

#[test]
fn a_model_in_the_program_is_the_model_in_a_directory() {
    const FILES: &[(&str, &[u8])] = &[
        ("config.json", include_bytes!("../golden/qwen2/config.json")),
        ("model.safetensors", include_bytes!("../golden/qwen2/model.safetensors")),
        ("tokenizer.json", include_bytes!("../golden/qwen2/tokenizer.json")),
        ("tokenizer_config.json", include_bytes!("../golden/qwen2/tokenizer_config.json")),
    ];
    let embedded = load(&ModelSource::Embedded(FILES), &Reference, &options(None)).unwrap();
    let directory = ModelSource::Directory(repository("tests/golden/qwen2"));
    let directory = load(&directory, &Reference, &options(None)).unwrap();
    assert_eq!(embedded.facts.parameters, directory.facts.parameters);
    assert_eq!(embedded.text.eos_ids, directory.text.eos_ids);
    assert_eq!(embedded.text.special_tokens["eos_token"], "<|im_end|>");
}

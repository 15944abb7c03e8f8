//! Texts read instead of continued, with an engine that says what the test tells it to.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]
mod goldens;
mod refused;
mod scores;
mod stub;
mod windows;

use lorad::{
    engine::{Output, Submission},
    generation::{
        EncodeInput, EncodeRequest, EncodedValue, HeadKind, Keep, Pooling, Truncation, Wanted,
    },
};
use std::time::Duration;
use stub::{Stub, embedding, embeds, labels, named, reader, service, texts, tokenizer};

const CLS: u32 = 2;
const SEP: u32 = 3;

fn ids(text: &str) -> Vec<u32> {
    tokenizer().encode_fast(text, false).unwrap().get_ids().to_vec()
}

fn prompts(stub: &Stub) -> Vec<Vec<u32>> {
    stub.submissions().iter().map(|submission| submission.prompt.clone()).collect()
}

#[tokio::test]
async fn texts_become_vectors_in_their_order_and_say_what_they_cost() {
    let stub = Stub::saying(|submission| vec![submission.prompt.len() as f32, 0.0, 0.0, 0.0]);
    let wanted = Wanted::Embedding { normalize: Some(false), dimensions: Some(2), prompt: None };
    let texts = ["the rain", "it", "the old bridge was closed"];
    let encoded = reader(&stub).encode(self::texts(&texts, wanted)).await.unwrap();
    let lengths = texts.map(|text| ids(text).len() + 2);
    for (text, tokens) in encoded.texts.iter().zip(lengths) {
        assert_eq!(text.tokens, tokens);
        assert_eq!(text.value, EncodedValue::Vector(vec![tokens as f32, 0.0]));
    }
    assert_eq!(encoded.tokens(), lengths.iter().sum::<usize>());
    assert_eq!((encoded.labels, encoded.queued), (None, Duration::from_millis(3)));
    let submissions = stub.submissions();
    let is_reading = |submission: &Submission| {
        submission.output == Some(Output::Embedding(Pooling::Mean))
            && submission.sampling.options().max_tokens == 0
            && (submission.prompt.first(), submission.prompt.last()) == (Some(&CLS), Some(&SEP))
    };
    assert!(submissions.len() == 3 && submissions.iter().all(is_reading));
}

#[tokio::test]
async fn an_embedding_has_length_one_where_the_model_s_makers_want_it() {
    let stub = Stub::saying(|_| vec![3.0, 4.0, 0.0, 12.0]);
    let of = async |normalize, dimensions| {
        let wanted = Wanted::Embedding { normalize, dimensions, prompt: None };
        let read = reader(&stub).encode(texts(&["it"], wanted)).await.unwrap();
        read.texts[0].value.clone()
    };
    let vector = |values: [f32; 4], n: usize| EncodedValue::Vector(values[..n].to_vec());
    let unit = [3.0_f32, 4.0, 0.0, 12.0].map(|x| x / 13.0);
    assert_eq!(of(None, None).await, vector(unit, 4));
    assert_eq!(of(Some(false), None).await, vector([3.0, 4.0, 0.0, 12.0], 4));
    assert_eq!(of(None, Some(2)).await, vector([0.6, 0.8, 0.0, 0.0], 2));
}

#[tokio::test]
async fn a_named_text_goes_before_each_input() {
    let stub = Stub::saying(|_| vec![1.0; 4]);
    let mut abilities = embeds();
    let asked = async |abilities: &lorad::generation::Abilities, prompt: Option<&str>| {
        let prompt = prompt.map(str::to_owned);
        let wanted = Wanted::Embedding { normalize: None, dimensions: None, prompt };
        let (generator, _) = service(&stub, abilities.clone());
        generator.encode(texts(&["rain"], wanted)).await.unwrap();
        prompts(&stub).pop().unwrap()
    };
    let special = |text: &str| [&[CLS], ids(text).as_slice(), &[SEP]].concat();
    assert_eq!(asked(&abilities, None).await, special("rain"));
    assert_eq!(asked(&abilities, Some("query")).await, special("the rain"));
    abilities.embedding.as_mut().unwrap().default_prompt = Some("query".into());
    assert_eq!(asked(&abilities, None).await, special("the rain"));
    assert_eq!(asked(&abilities, Some("plain")).await, special("rain"));
}

#[tokio::test]
async fn token_ids_go_as_they_are_and_special_tokens_only_where_wanted() {
    let stub = Stub::saying(|_| vec![1.0; 4]);
    let inputs = vec![EncodeInput::Tokens(vec![9, 8, 7]), EncodeInput::Text("rain".into())];
    let request = EncodeRequest { inputs, add_special_tokens: false, ..texts(&[], embedding()) };
    reader(&stub).encode(request).await.unwrap();
    assert_eq!(prompts(&stub), [vec![9, 8, 7], ids("rain")]);
}

#[tokio::test]
async fn two_texts_stand_side_by_side_and_the_second_is_told_from_the_first() {
    let stub = Stub::saying(|_| vec![0.0, 0.0]);
    let pair = EncodeInput::Pair("the rain".into(), "it was closed".into());
    let request = EncodeRequest {
        inputs: vec![pair],
        adapters: named(&["classifier"]),
        ..texts(&[], Wanted::Labels { raw: false })
    };
    reader(&stub).encode(request).await.unwrap();
    let (first, second) = (ids("the rain"), ids("it was closed"));
    let whole = [&[CLS], first.as_slice(), &[SEP], second.as_slice(), &[SEP]].concat();
    assert_eq!(prompts(&stub), [whole]);
    assert_eq!(stub.submissions()[0].second_text, Some(first.len() + 2));
}

#[tokio::test]
async fn an_adapter_is_leased_once_and_brings_its_labels() {
    let stub = Stub::saying(|_| vec![0.0, 3.0_f32.ln()]);
    let classify = async |raw| {
        let adapters = named(&["classifier"]);
        let request =
            EncodeRequest { adapters, ..texts(&["the rain", "it"], Wanted::Labels { raw }) };
        reader(&stub).encode(request).await.unwrap()
    };
    let encoded = classify(false).await;
    assert_eq!(*stub.leases.lock().unwrap(), 1, "one version for all texts");
    let wanted = labels(HeadKind::Sequence, &["no", "yes"]);
    assert_eq!(encoded.labels, Some(wanted));
    assert_eq!(encoded.served[0].name.as_str(), "classifier");
    for text in &encoded.texts {
        let EncodedValue::Scores(scores) = &text.value else { panic!("{text:?}") };
        assert!((scores[0] - 0.25).abs() < 1e-6 && (scores[1] - 0.75).abs() < 1e-6, "{scores:?}");
    }
    let raw = classify(true).await;
    assert_eq!(raw.texts[0].value, EncodedValue::Scores(vec![0.0, 3.0_f32.ln()]));
    let of_one = |s: &Submission| s.adapters.parts().len() == 1 && s.output == Some(Output::Scores);
    assert!(stub.submissions().iter().all(of_one));
}

#[tokio::test]
async fn what_is_found_in_a_text_stands_where_it_says() {
    let rain = ids("rain").len();
    let stub = Stub::saying(move |submission| {
        let tokens = submission.prompt.len();
        let begins = tokens - 1 - rain;
        // The second word, and the special tokens, which are nobody's.
        let best = |at: usize| match at {
            _ if at == begins || at == 0 || at + 1 == tokens => 1,
            _ if at > begins => 2,
            _ => 0,
        };
        let scores = |at| (0..3).map(move |label| if label == best(at) { 5.0 } else { 0.0 });
        (0..tokens).flat_map(scores).collect()
    });
    let text = "ÄÖ rain";
    let request = EncodeRequest {
        adapters: named(&["tagger"]),
        ..texts(&[text], Wanted::Labels { raw: false })
    };
    let encoded = reader(&stub).encode(request).await.unwrap();
    let EncodedValue::Entities(found) = &encoded.texts[0].value else { panic!("{encoded:?}") };
    let [entity] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!((entity.label.as_str(), entity.text.as_str()), ("PER", "rain"));
    assert_eq!((entity.start, entity.end), (3, 7));
    assert!(entity.score > 0.9);
    assert_eq!(stub.submissions()[0].output, Some(Output::TokenScores));
}

#[tokio::test]
async fn a_vector_for_each_token_is_as_many_as_there_are_tokens() {
    let stub = Stub::saying(|submission| vec![1.0; 4 * submission.prompt.len()]);
    let encoded = reader(&stub).encode(texts(&["rain"], Wanted::TokenEmbeddings)).await.unwrap();
    let tokens = ids("rain").len() + 2;
    assert_eq!(encoded.texts[0].value, EncodedValue::Vectors(vec![vec![1.0; 4]; tokens]));
}

#[tokio::test]
async fn what_is_too_long_is_cut_inside_its_special_tokens() {
    let stub = Stub::saying(|_| vec![1.0; 4]);
    let long = "it ".repeat(40);
    let cut = async |inputs: Vec<EncodeInput>, truncation| {
        let request = EncodeRequest { inputs, truncation, ..texts(&[], embedding()) };
        reader(&stub).encode(request).await.unwrap();
        prompts(&stub).pop().unwrap()
    };
    let it = ids("it")[0];
    let text = || vec![EncodeInput::Text(format!("rain {long}. closed"))];
    let yes = Truncation { cut: Some(true), ..Truncation::default() };
    let first = cut(text(), yes).await;
    assert_eq!((first.len(), first[0], first[15]), (16, CLS, SEP));
    let rain = ids("rain");
    assert_eq!(first[1..rain.len() + 2], [rain.as_slice(), &[it]].concat());
    let last = cut(text(), Truncation { keep: Keep::Last, ..yes }).await;
    assert_eq!((last.len(), last[0], last[15]), (16, CLS, SEP));
    assert_eq!(last[14], *ids("closed").last().unwrap());
    let short = cut(text(), Truncation { limit: Some(5), ..Truncation::default() }).await;
    assert_eq!(short, [&[CLS], &first[1..4], &[SEP]].concat());
    let tokens = cut(vec![EncodeInput::Tokens((5..40).collect())], yes).await;
    assert_eq!(tokens, (5..21).collect::<Vec<u32>>());
    let pair = EncodeInput::Pair("rain it".into(), long);
    let pair = cut(vec![pair], yes).await;
    let rain = ids("rain it");
    let second = 16 - 3 - rain.len();
    assert_eq!(pair[..=rain.len() + 1], [&[CLS], rain.as_slice(), &[SEP]].concat());
    assert_eq!(pair[rain.len() + 2..], [vec![it; second], vec![SEP]].concat());
}

#[tokio::test]
async fn text_goes_to_tokens_and_back() {
    let stub = Stub::holding(1);
    let generator = reader(&stub);
    let tokens = generator.tokenize("the old bridge, closed".into(), true).await.unwrap();
    let ids: Vec<u32> = tokens.iter().map(|token| token.id).collect();
    let wanted = tokenizer().encode("the old bridge, closed", true).unwrap();
    assert_eq!(ids, wanted.get_ids());
    let text = generator.detokenize(ids).await.unwrap();
    assert_eq!(text, "[CLS] the old bridge, closed [SEP]");
}

//! What cannot be read, by name.
use super::stub::{
    CONTEXT, Stub, embedding, embeds, labels, labels_texts, named, reader, service, texts,
};
use lorad::{
    error::{Classified, ErrorKind},
    generation::{
        Abilities, EncodeConfig, EncodeInput, EncodeRequest, GenerateError, GenerateRequest,
        Generator, HeadKind, Priority, Prompt, SamplingOptions, Truncation, Wanted,
    },
};

async fn refused(generator: &Generator, request: EncodeRequest) -> GenerateError {
    let error = generator.encode(request).await.expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::InvalidRequest, "{error}");
    error
}

fn named_by(error: &GenerateError) -> (&str, Option<&str>) {
    (error.code(), error.param())
}

fn classes() -> Wanted {
    Wanted::Labels { raw: false }
}

#[tokio::test]
async fn empty_inputs_are_named_by_their_place() {
    let stub = Stub::saying(|_| vec![1.0; 4]);
    let generator = reader(&stub);
    let error = refused(&generator, texts(&["it", "it", "", "it"], embedding())).await;
    assert_eq!(named_by(&error), ("empty_input", Some("input[2]")));
    let error = refused(&generator, texts(&[""], embedding())).await;
    assert_eq!(named_by(&error), ("empty_input", Some("input")));
    let error = refused(&generator, texts(&[], embedding())).await;
    assert_eq!(named_by(&error), ("invalid_value", Some("input")));
    let inputs = vec![EncodeInput::Tokens(vec![5]), EncodeInput::Tokens(Vec::new())];
    let error = refused(&generator, EncodeRequest { inputs, ..texts(&[], embedding()) }).await;
    assert_eq!(named_by(&error), ("empty_input", Some("input[1]")));
    let inputs = vec![EncodeInput::Pair("it".into(), String::new())];
    let error = refused(&generator, EncodeRequest { inputs, ..texts(&[], embedding()) }).await;
    assert_eq!(named_by(&error), ("empty_input", Some("input")));
    assert!(stub.submissions().is_empty(), "all of them or none");
}

#[tokio::test]
async fn what_is_too_long_is_refused_with_its_length_unless_it_may_be_cut() {
    let stub = Stub::saying(|_| vec![1.0; 4]);
    let long = "it ".repeat(30);
    let request = |cut| EncodeRequest {
        truncation: Truncation { cut, ..Truncation::default() },
        ..texts(&["it", &long], embedding())
    };
    let generator = reader(&stub);
    let error = refused(&generator, request(None)).await;
    assert_eq!(named_by(&error), ("context_length_exceeded", Some("input[1]")));
    let text = error.to_string();
    assert!(text.starts_with("This model's maximum context length is 16 tokens."), "{text}");
    assert!(text.contains("`input[1]` contains 32 input tokens"), "{text}");
    let cutting = EncodeConfig { auto_truncate: true, ..EncodeConfig::default() };
    let generator = generator.reading_as(cutting);
    generator.encode(request(None)).await.unwrap();
    assert_eq!(stub.submissions().last().unwrap().prompt.len(), CONTEXT);
    let error = refused(&generator, request(Some(false))).await;
    assert_eq!(error.code(), "context_length_exceeded", "the request has the last word");
}

#[tokio::test]
async fn an_embedding_model_may_read_less_than_it_could() {
    let stub = Stub::saying(|_| vec![1.0; 4]);
    let mut abilities = embeds();
    abilities.embedding.as_mut().unwrap().max_tokens = Some(8);
    let (generator, _) = service(&stub, abilities);
    let text = "it ".repeat(10);
    let error = refused(&generator, texts(&[&text], embedding())).await;
    assert!(error.to_string().contains("is 8 tokens"), "{error}");
    let labelled = EncodeRequest { adapters: named(&["classifier"]), ..texts(&[&text], classes()) };
    let (generator, _) = service(&Stub::saying(|_| vec![1.0; 2]), embeds());
    generator.encode(labelled).await.unwrap();
}

#[tokio::test]
async fn a_limit_without_room_for_a_text_is_refused() {
    let stub = Stub::saying(|_| vec![1.0; 4]);
    let cut = |limit, inputs| EncodeRequest {
        inputs,
        truncation: Truncation { limit: Some(limit), ..Truncation::default() },
        ..texts(&[], embedding())
    };
    let text = || vec![EncodeInput::Text("the old bridge".into())];
    let error = refused(&reader(&stub), cut(2, text())).await;
    assert!(error.to_string().contains("leave no room beside the 2 special"), "{error}");
    let pair = vec![EncodeInput::Pair("it was".into(), "it was".into())];
    let error = refused(&reader(&stub), cut(4, pair)).await;
    assert!(error.to_string().contains("leave no room beside the 3 special"), "{error}");
    reader(&stub).encode(cut(3, text())).await.unwrap();
}

#[tokio::test]
async fn an_unknown_token_is_named() {
    let stub = Stub::saying(|_| vec![1.0; 4]);
    let inputs = vec![EncodeInput::Tokens(vec![5, 100_000])];
    let error = refused(&reader(&stub), EncodeRequest { inputs, ..texts(&[], embedding()) }).await;
    assert_eq!(named_by(&error), ("invalid_value", Some("input")));
    assert!(error.to_string().contains("100000"), "{error}");
}

#[tokio::test]
async fn dimensions_and_prompts_are_the_model_s() {
    let stub = Stub::saying(|_| vec![1.0; 4]);
    let with = |dimensions: Option<usize>, prompt: Option<&str>| {
        let prompt = prompt.map(str::to_owned);
        texts(&["it"], Wanted::Embedding { normalize: None, dimensions, prompt })
    };
    for dimensions in [0, 5] {
        let error = refused(&reader(&stub), with(Some(dimensions), None)).await;
        assert_eq!(named_by(&error), ("invalid_value", Some("dimensions")));
        assert!(error.to_string().contains("between 1 and 4"), "{error}");
    }
    let mut rigid = embeds();
    rigid.embedding.as_mut().unwrap().shortens = false;
    let (rigid, _) = service(&stub, rigid);
    let error = refused(&rigid, with(Some(2), None)).await;
    assert!(error.to_string().contains("must be 4 with this model"), "{error}");
    rigid.encode(with(Some(4), None)).await.unwrap();
    let error = refused(&reader(&stub), with(None, Some("passage"))).await;
    assert_eq!(error.param(), Some("prompt_name"));
    assert!(error.to_string().contains("it has `plain`, `query`"), "{error}");
}

#[tokio::test]
async fn what_model_and_adapter_have_not_is_refused_by_name() {
    let stub = Stub::saying(|_| vec![1.0; 4]);
    let with = |adapters: &[&str], wanted| EncodeRequest {
        adapters: named(adapters),
        ..texts(&["it"], wanted)
    };
    let generator = reader(&stub);
    let error = refused(&generator, with(&[], classes())).await;
    assert_eq!(named_by(&error), ("no_classification_head", Some("model")));
    let error = refused(&generator, with(&["a"], classes())).await;
    assert_eq!(named_by(&error), ("no_classification_head", Some("the field of a")));
    assert!(error.to_string().contains("adapter `a`"), "{error}");
    let error = refused(&generator, with(&["a", "classifier"], classes())).await;
    assert_eq!(named_by(&error), ("adapter_not_mixable", Some("the field of classifier")));
    let mut half = with(&["classifier"], classes());
    half.adapters[0].weight = 0.5;
    assert_eq!(refused(&generator, half).await.code(), "adapter_not_mixable");
    let error = refused(&generator, with(&["late"], classes())).await;
    assert!(error.to_string().contains("invocation"), "{error}");
    let (labelling, _) =
        service(&stub, labels_texts(labels(HeadKind::Sequence, &["a", "b", "c", "d"])));
    for wanted in [embedding(), Wanted::TokenEmbeddings] {
        let error = refused(&labelling, with(&[], wanted)).await;
        assert_eq!(named_by(&error), ("model_does_not_embed", Some("model")));
    }
    labelling.encode(with(&["a", "b"], classes())).await.expect("both keep the base's head");
    let error = generator.encode(with(&["nobody"], embedding())).await.err().unwrap();
    assert_eq!(named_by(&error), ("adapter_not_found", Some("the field of nobody")));
}

#[tokio::test]
async fn labels_of_tokens_are_of_one_text() {
    let stub = Stub::saying(|_| vec![1.0; 4]);
    let inputs = [EncodeInput::Tokens(vec![5, 6]), EncodeInput::Pair("it".into(), "it".into())];
    for input in inputs {
        let adapters = named(&["tagger"]);
        let request = EncodeRequest { inputs: vec![input], adapters, ..texts(&[], classes()) };
        let error = refused(&reader(&stub), request).await;
        assert_eq!(named_by(&error), ("invalid_value", Some("input")));
    }
}

fn answer(adapters: &[&str]) -> GenerateRequest {
    GenerateRequest {
        prompt: Prompt::Text { text: "it".into(), add_special_tokens: true },
        adapters: named(adapters),
        sampling: SamplingOptions::default(),
        max_tokens: Some(4),
        default_max_tokens: None,
        stop: Vec::new(),
        include_stop: false,
        skip_special_tokens: true,
        n: 1,
        truncate_prompt_tokens: None,
        shows_prompt: false,
        cache_salt: None,
        bad_words: Vec::new(),
        constraint: None,
        priority: Priority::Normal,
    }
}

#[tokio::test]
async fn nothing_that_only_reads_is_asked_for_an_answer() {
    let stub = Stub::holding(8);
    let error = reader(&stub).generate(answer(&[])).await.err().unwrap();
    assert_eq!(named_by(&error), ("model_does_not_generate", Some("model")));
    let (generator, _) = service(&stub, Abilities::default());
    let error = generator.generate(answer(&["a", "classifier"])).await.err().unwrap();
    assert_eq!(named_by(&error), ("adapter_does_not_generate", Some("the field of classifier")));
    assert!(stub.submissions().is_empty());
    assert!(generator.generate(answer(&["a"])).await.is_ok());
}

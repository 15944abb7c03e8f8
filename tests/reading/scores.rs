//! How well texts go together.
use super::stub::{Stub, embeds, labels, labels_texts, named, reader, service};
use lorad::{
    engine::Output,
    error::Classified,
    generation::{Abilities, HeadKind, Priority, ScoreRequest, Truncation},
};

fn pairs(pairs: &[(&str, &str)], adapters: &[&str]) -> ScoreRequest {
    let pairs = pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
    ScoreRequest {
        pairs,
        field: "documents",
        raw: false,
        adapters: named(adapters),
        truncation: Truncation::default(),
        priority: Priority::Normal,
    }
}

#[tokio::test]
async fn a_head_of_one_label_reads_both_texts_side_by_side() {
    let stub = Stub::saying(|submission| vec![submission.prompt.len() as f32 - 6.0]);
    let asked = [("rain", "it"), ("rain", "it was closed")];
    let scored = reader(&stub).score(pairs(&asked, &["judge"])).await.unwrap();
    let lengths: Vec<_> = stub.submissions().iter().map(|s| s.prompt.len()).collect();
    let sigmoid = |len: usize| 1.0 / (1.0 + (6.0 - len as f32).exp());
    assert!((scored.scores[0] - sigmoid(lengths[0])).abs() < 1e-6);
    assert!((scored.scores[1] - sigmoid(lengths[1])).abs() < 1e-6);
    assert_eq!(scored.tokens, lengths.iter().sum::<usize>());
    assert_eq!(scored.served[0].name.as_str(), "judge");
    let is_pair =
        |s: &lorad::engine::Submission| s.second_text.is_some() && s.output == Some(Output::Scores);
    assert!(stub.submissions().iter().all(is_pair));
    let raw = ScoreRequest { raw: true, ..pairs(&asked, &["judge"]) };
    let raw = reader(&stub).score(raw).await.unwrap();
    assert_eq!(raw.scores, [lengths[0] as f32 - 6.0, lengths[1] as f32 - 6.0]);
}

#[tokio::test]
async fn embeddings_are_compared_and_each_text_is_read_once() {
    let stub = Stub::saying(|submission| {
        let long = submission.prompt.len() > 3;
        if long { vec![0.0, 2.0, 0.0, 0.0] } else { vec![3.0, 4.0, 0.0, 0.0] }
    });
    let it = ("it", "it");
    let asked = [it, ("it", "the old bridge"), it, ("the old bridge", "it")];
    let scored = reader(&stub).score(pairs(&asked, &["a"])).await.unwrap();
    assert_eq!(stub.submissions().len(), 2);
    for (score, wanted) in scored.scores.iter().zip([1.0, 0.8, 1.0, 0.8]) {
        assert!((score - wanted).abs() < 1e-6, "{:?}", scored.scores);
    }
    let tokens: usize = stub.submissions().iter().map(|s| s.prompt.len()).sum();
    assert_eq!(scored.tokens, tokens);
}

#[tokio::test]
async fn what_cannot_score_says_so() {
    let stub = Stub::saying(|_| vec![0.0]);
    let asked = [("it", "it")];
    let refused = async |abilities: Abilities, adapters: &[&str]| {
        let error = service(&stub, abilities).0.score(pairs(&asked, adapters)).await.err().unwrap();
        (error.code(), error.param().unwrap_or_default().to_owned(), error.to_string())
    };
    let (code, field, text) = refused(embeds(), &["classifier"]).await;
    assert_eq!((code, field.as_str()), ("head_does_not_score", "the field of classifier"));
    assert!(text.contains("this one has 2;"), "{text}");
    let (code, _, text) = refused(embeds(), &["tagger"]).await;
    assert!(code == "head_does_not_score" && text.contains("for each token"), "{text}");
    let many = labels_texts(labels(HeadKind::Sequence, &["a", "b", "c"]));
    assert_eq!(refused(many, &[]).await.0, "head_does_not_score");
    let nothing = Abilities { embedding: None, ..embeds() };
    assert_eq!(refused(nothing, &[]).await.0, "model_does_not_score");
    assert!(stub.submissions().is_empty());
}

#[tokio::test]
async fn a_text_that_is_too_long_is_named_by_its_place() {
    let stub = Stub::saying(|_| vec![0.0; 4]);
    let long = "it ".repeat(20);
    let refused = async |asked: &[(&str, &str)], adapter: &str| {
        let error = reader(&stub).score(pairs(asked, &[adapter])).await.err().unwrap();
        assert_eq!(error.code(), "context_length_exceeded");
        (error.param().unwrap_or_default().to_owned(), error.to_string())
    };
    let (field, text) = refused(&[("it", "it"), ("rain", &long)], "judge").await;
    assert_eq!(field, "documents[1]");
    assert!(text.contains("`documents[1]` with the text beside it contains"), "{text}");
    let (_, text) = refused(&[("it", "it"), (&long, "it")], "a").await;
    assert!(text.contains("the text that `documents[1]` is compared with contains 22"), "{text}");
    let empty = reader(&stub).score(pairs(&[("it", "it"), ("it", "")], &["a"])).await;
    let error = empty.err().unwrap();
    assert_eq!((error.code(), error.param()), ("empty_input", Some("documents[1]")));
    assert!(stub.submissions().is_empty());
}

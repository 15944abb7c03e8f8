//! How many texts of a request are in the engine at a time, and what becomes of them.
use super::stub::{Stub, embedding, embeds, named, reader, service, texts};
use lorad::{
    engine::{EngineError, Event},
    error::{Classified, ErrorKind},
    generation::{EncodeRequest, EncodedValue, Priority},
    telemetry::{EngineFigures, Exposition},
};
use std::time::Duration;

/// Lets others work until `holds`; the limit is only there so that a broken test ends.
async fn until(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..2000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("never happened: {what}");
}

#[tokio::test]
async fn a_request_has_so_many_texts_in_the_queue_and_no_more() {
    let stub = Stub::holding(6);
    let generator = reader(&stub);
    let all = vec!["rain"; 100];
    let request = texts(&all, embedding());
    let reading = tokio::spawn(async move { generator.encode(request).await });
    for text in 0..100_u8 {
        until("its turn", || stub.held() == 4.min(100 - usize::from(text))).await;
        stub.release(vec![f32::from(text) + 1.0, 0.0, 0.0, 0.0]);
    }
    let encoded = reading.await.unwrap().unwrap();
    assert_eq!(*stub.most.lock().unwrap(), 4);
    assert_eq!(encoded.texts.len(), 100);
    let unit = EncodedValue::Vector(vec![1.0, 0.0, 0.0, 0.0]);
    assert!(encoded.texts.iter().all(|text| text.value == unit));
}

#[tokio::test]
async fn outputs_find_their_texts_in_whatever_order_they_come() {
    let stub = Stub::saying(|submission| vec![submission.prompt[1] as f32, 1.0, 0.0, 0.0]);
    let all: Vec<_> = ["rain", "it", "was", "closed", "bridge", "old"].repeat(9);
    let raw = lorad::generation::Wanted::Embedding {
        normalize: Some(false),
        dimensions: None,
        prompt: None,
    };
    let encoded = reader(&stub).encode(texts(&all, raw)).await.unwrap();
    for (text, encoded) in all.iter().zip(encoded.texts) {
        let first = super::ids(text)[0] as f32;
        assert_eq!(encoded.value, EncodedValue::Vector(vec![first, 1.0, 0.0, 0.0]), "{text}");
    }
}

#[tokio::test]
async fn a_full_queue_refuses_a_request_only_while_none_of_its_texts_is_in_it() {
    let stub = Stub::holding(3);
    let mut others = stub.occupy(3);
    let (generator, _) = service(&stub, embeds());
    let full = generator.encode(texts(&["rain"; 5], embedding())).await.err().unwrap();
    assert_eq!((full.kind(), full.code()), (ErrorKind::Overloaded, "queue_full"));
    others.pop();
    let reading =
        tokio::spawn(async move { generator.encode(texts(&["rain"; 5], embedding())).await });
    until("the first", || stub.submissions().len() == 1).await;
    // Two of others, which nobody reads, and one of its own at a time.
    for text in 1..=5 {
        until("the next", || stub.submissions().len() == text).await;
        let last = stub.held();
        assert_eq!(last, 3);
        stub.release_last(vec![1.0; 4]);
    }
    assert_eq!(reading.await.unwrap().unwrap().texts.len(), 5);
}

#[tokio::test]
async fn dropping_the_future_cancels_every_text() {
    let stub = Stub::holding(8);
    let generator = reader(&stub);
    let reading =
        tokio::spawn(async move { generator.encode(texts(&["it"; 9], embedding())).await });
    until("its texts", || stub.held() == 4).await;
    reading.abort();
    until("their end", || stub.held() == 0).await;
    assert_eq!(stub.submissions().len(), 4);
}

#[tokio::test]
async fn the_first_failure_is_the_request_s_and_cancels_the_rest() {
    let stub = Stub::telling(|submission| {
        if submission.prompt.len() > 3 {
            return Event::Failed(EngineError::NonFinite { adapters: vec!["a".into()] });
        }
        Event::Output { values: vec![1.0; 4] }
    });
    let all = ["it", "it", "the rain", "it"];
    let error = reader(&stub).encode(texts(&all, embedding())).await.err().unwrap();
    assert_eq!(error.code(), "non_finite_output");
    assert!(error.is_public());
}

#[tokio::test]
async fn what_was_read_is_counted_for_each_adapter_and_nothing_as_generated() {
    let stub = Stub::saying(|_| vec![1.0; 4]);
    let (generator, metrics) = service(&stub, embeds());
    let request = |adapters: &[&str], priority| EncodeRequest {
        adapters: named(adapters),
        priority,
        ..texts(&["it", "rain it"], embedding())
    };
    let first = generator.encode(request(&["a", "b"], Priority::Normal)).await.unwrap();
    generator.encode(request(&["a"], Priority::Shadow)).await.unwrap();
    let text = metrics.expose(&EngineFigures::default(), Exposition::Prometheus);
    let value = |series: &str| {
        let line = text.lines().find(|line| line.starts_with(series));
        line.and_then(|line| line.rsplit_once(' ')).map(|(_, value)| value.to_owned())
    };
    for adapter in ["a", "b"] {
        let labels = format!(
            "lorad_requests_total{{model_name=\"tiny\",engine=\"0\",adapter=\"{adapter}\"}}"
        );
        assert_eq!(value(&labels).as_deref(), Some("2"), "{text}");
        let labels = labels.replace("requests", "adapter_prompt_tokens");
        assert_eq!(value(&labels), Some(first.tokens().to_string()));
    }
    let labels = "{model_name=\"tiny\",engine=\"0\"}";
    let count = |name: &str| value(&format!("vllm:{name}_count{labels}"));
    assert_eq!(count("request_queue_time_seconds").as_deref(), Some("2"));
    assert_eq!(count("request_prompt_tokens").as_deref(), Some("2"));
    assert_eq!(count("request_generation_tokens").as_deref(), Some("0"));
}

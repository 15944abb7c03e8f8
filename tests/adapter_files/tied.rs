//! Rows of tokens, and what is written for one side of a tied table.
use super::{
    made::{TABLE, add_embedding_pair, at, empty, flat, named, plain, table, tied, weights},
    refused_on,
};
use crate::adapter_maker::{
    base::{MadeBase, VOCAB},
    small_layout, values,
};
use lorad::lora::Site;
use serde_json::json;

#[test]
fn token_rows_are_rows_in_the_order_of_the_tokens() {
    let rows = named(TABLE, "token_adapter.trainable_tokens_delta");
    let mut maker = plain().with("trainable_token_indices", json!([9, 3]));
    maker.set(&rows, &[2, 8], &values(16, 50));
    let sorted = [&values(16, 50)[8..], &values(16, 50)[..8]].concat();
    let apart = weights(&MadeBase::new(small_layout()), &maker);
    let trained = table(&apart).trained.as_ref().expect("rows");
    assert_eq!(
        (flat(&trained.weight), trained.ids.as_deref()),
        (sorted.clone(), Some([3, 9].as_slice()))
    );
    assert!(apart.at(Site::Head).is_none());
    let shared = weights(&tied(), &maker);
    let head = at(&shared, Site::Head);
    assert_eq!(flat(&head.trained.as_ref().expect("rows").weight), sorted);
    let kept: Vec<_> = (0..VOCAB).map(|id| if [3, 9].contains(&id) { 0.0 } else { 1.0 }).collect();
    assert_eq!(flat(head.gain.as_ref().expect("a gain")), kept);
    let both = json!({"embed_tokens": [9, 3], "lm_head": [1]});
    let mut maker = maker.with("trainable_token_indices", both);
    maker.set(&named("lm_head", "token_adapter.trainable_tokens_delta"), &[1, 8], &values(8, 51));
    let own = weights(&tied(), &maker);
    let head = at(&own, Site::Head).trained.as_ref().expect("rows");
    assert_eq!((flat(&head.weight), head.ids.as_deref()), (values(8, 51), Some([1].as_slice())));
}

#[test]
fn one_side_of_a_tied_table_changes_alone_unless_the_config_ties_it() {
    let mut maker = plain().with("modules_to_save", json!(["embed_tokens"]));
    maker.set(&named(TABLE, "weight"), &[VOCAB, 8], &values(8 * VOCAB, 60));
    let one = weights(&tied(), &maker);
    assert!(one.embedding().is_some() && one.at(Site::Head).is_none());
    for maker in [
        maker.clone().with("ensure_weight_tying", json!(true)),
        // PEFT loads what no module is wrapped for into the base, and so into both.
        maker.clone().with("modules_to_save", json!(null)),
    ] {
        let both = weights(&tied(), &maker);
        let head = at(&both, Site::Head).trained.as_ref().expect("rows");
        assert_eq!(flat(&head.weight), values(8 * VOCAB, 60));
        let mut differing = maker;
        differing.set(&named("lm_head", "weight"), &[VOCAB, 8], &values(8 * VOCAB, 61));
        assert!(refused_on(&tied(), &differing).contains("differ"));
    }
    let mut apart = maker.with("modules_to_save", json!(["embed_tokens", "lm_head"]));
    apart.set(&named("lm_head", "weight"), &[VOCAB, 8], &values(8 * VOCAB, 61));
    let apart = weights(&tied(), &apart);
    assert_eq!(
        flat(&at(&apart, Site::Head).trained.as_ref().expect("rows").weight),
        values(8 * VOCAB, 61)
    );
}

#[test]
fn pairs_on_a_tied_table_are_each_side_s_own_or_the_same_turned() {
    let mut maker = empty(&["embed_tokens"]).with("ensure_weight_tying", json!(true));
    add_embedding_pair(&mut maker, 5);
    let lonely = refused_on(&tied(), &maker);
    assert!(lonely.contains("lm_head"), "{lonely}");
    let turned = |values: &[f32], columns: usize| -> Vec<f32> {
        (0..columns).flat_map(|c| values.iter().skip(c).step_by(columns).copied()).collect()
    };
    maker.set(&named("lm_head", "lora_A.weight"), &[2, 8], &turned(&values(16, 6), 2));
    maker.set(
        &named("lm_head", "lora_B.weight"),
        &[VOCAB, 2],
        &turned(&values(2 * VOCAB, 5), VOCAB),
    );
    let weights = weights(&tied(), &maker);
    assert!(weights.embedding().is_some() && weights.at(Site::Head).is_some());
    maker.set(&named("lm_head", "lora_A.weight"), &[2, 8], &values(16, 7));
    assert!(refused_on(&tied(), &maker).contains("differ"));
    let maker = maker.with("ensure_weight_tying", json!(false));
    assert!(refused_on(&tied(), &maker).contains("does not select"));
}

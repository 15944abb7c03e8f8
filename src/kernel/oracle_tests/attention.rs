//! Paged attention: shared heads, windows, chunks of a prompt, whole texts, blocks in any order.
use super::{
    candidates::{Candidate, candidates},
    inputs::{Paged, around, paged},
};
use crate::kernel::{KvPrecision, KvShape, Reach, Reference};
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn attention_over_ragged_batches(paged in paged()) {
        agrees(&paged)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn attention_over_ragged_texts_on_both_sides(texts in around()) {
        agrees(&texts)?;
    }
}

fn agrees(paged: &Paged) -> Result<(), TestCaseError> {
    let want = paged.fill(&Reference).attend(&Reference, paged);
    let keeping = |candidate: &&Candidate| candidate.keeps(paged.shape.precision);
    for candidate in candidates().iter().filter(keeping) {
        let kernels = &*candidate.kernels;
        let got = paged.fill(kernels).attend(kernels, paged);
        let precision = paged.shape.precision;
        candidate.check_attention(&got, &want, precision).map_err(TestCaseError::fail)?;
    }
    Ok(())
}

/// Whatever a cache rounds to: a key or a value that is no number is seen in every answer it is part of, and in no other.
#[test]
fn what_is_not_finite_stays_visible_and_with_its_sequence() {
    for precision in [KvPrecision::F32, KvPrecision::Bf16, KvPrecision::Int8] {
        let shape =
            KvShape { layers: 2, blocks: 6, block_size: 16, kv_heads: 1, head_dim: 32, precision };
        let (reach, sequences) = (Reach::Back(None), vec![(1, 20), (1, 20)]);
        let paged = Paged { shape, heads: 2, reach, sequences, seed: 5 };
        for candidate in candidates().iter().filter(|candidate| candidate.keeps(precision)) {
            for (number, spoilt) in [f32::NAN, f32::INFINITY].into_iter().zip([0, 1]) {
                let kernels = &*candidate.kernels;
                let mut batch = paged.fill(kernels);
                let mut row = [vec![1.0; shape.row()], vec![1.0; shape.row()]];
                row[spoilt][7] = number;
                let third = batch.block_tables[0] * shape.block_size as u32 + 2;
                paged.write(kernels, &mut batch.cache, (&row[0], &row[1]), &[third]);
                let answers = candidate.read(&batch.attend(kernels, &paged));
                let (first, second) = answers.split_at(paged.heads * shape.head_dim);
                let name = &candidate.name;
                assert!(first.iter().any(|y| !y.is_finite()), "{name}, {precision}: {number}");
                assert!(second.iter().all(|y| y.is_finite()), "{name}, {precision}: {number}");
            }
        }
    }
}

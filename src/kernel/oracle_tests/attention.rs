//! Paged attention: shared heads, windows, chunks of a prompt, whole texts, blocks in any order.
use super::{
    candidates::candidates,
    inputs::{Paged, around, paged},
};
use crate::kernel::Reference;
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
    for candidate in candidates() {
        let kernels = &*candidate.kernels;
        let got = paged.fill(kernels).attend(kernels, paged);
        let precision = paged.shape.precision;
        candidate.check_attention(&got, &want, precision).map_err(TestCaseError::fail)?;
    }
    Ok(())
}

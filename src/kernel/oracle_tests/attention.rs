//! Paged attention: shared heads, windows, chunks of a prompt, blocks in any order.
use super::{candidates::candidates, inputs::paged};
use crate::kernel::{Precision, Reference};
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn attention_over_ragged_batches(paged in paged()) {
        let want = paged.fill(&Reference).attend(&Reference, &paged);
        for candidate in candidates() {
            let kernels = &*candidate.kernels;
            let got = paged.fill(kernels).attend(kernels, &paged);
            candidate.check(&got, &want, Precision::F32).map_err(TestCaseError::fail)?;
        }
    }
}

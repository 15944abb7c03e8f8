//! Paged attention: shared heads, windows, chunks of a prompt, blocks in any order.
use super::{candidates::candidates, inputs::paged};
use crate::kernel::Reference;
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn attention_over_ragged_batches(paged in paged()) {
        let want = paged.fill(&Reference).attend(&Reference, &paged);
        for candidate in candidates() {
            let kernels = &*candidate.kernels;
            let got = paged.fill(kernels).attend(kernels, &paged);
            candidate.check_attention(&got, &want, paged.shape.precision).map_err(TestCaseError::fail)?;
        }
    }
}

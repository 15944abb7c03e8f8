//! Feed-forward layers: what lies between their products may be computed on the way into the last.
use super::{
    candidates::{Candidate, candidates},
    dense::ACTIVATIONS,
    inputs::{Noise, segments},
};
use crate::kernel::{Act, FeedForward, LinearDelta, LoraTarget, RowSegment};
use proptest::{collection::vec, option, prelude::*};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// At once or one after the other: the same to the bit, whichever way the kernels choose.
    #[test]
    fn at_once_as_in_parts(
        (rows, inner, out) in (1..70_usize, 1..140_usize, prop_oneof![1..70_usize, Just(64)]),
        (is_gated, is_biased, which) in (any::<bool>(), any::<bool>(), 0..5_usize),
        ranks in vec(option::weighted(0.8, 1..40_usize), 1..4),
        raw in vec((0.0..1.0, 0.0..1.0, 0..5_usize, -1.5..1.5_f32), 0..3),
        shifts in any::<bool>(),
        seed: u64,
    ) {
        let mut noise = Noise(seed);
        let (width, between) = if is_gated {
            (2 * inner, FeedForward::Gated(ACTIVATIONS[which]))
        } else {
            (inner, FeedForward::Plain(ACTIVATIONS[which]))
        };
        let (weight, bias) = ([noise.tensor(out, inner)], noise.values(out));
        let wide: Vec<f32> = noise.values(rows * width).iter().map(|x| 4.0 * x).collect();
        let y = noise.values(rows * out);
        let pairs: Vec<_> =
            ranks.iter().map(|rank| rank.map(|rank| noise.pair(rank, inner, out))).collect();
        let shift = shifts.then(|| noise.vector(out));
        let segments: &[RowSegment] = &segments(&raw, rows, ranks.len());
        for candidate in candidates() {
            let kernels = &*candidate.kernels;
            for precision in candidate.precisions() {
                let weight = kernels.pack(&weight, precision).unwrap();
                let bias = is_biased.then(|| candidate.act(&bias, out));
                let load = |pair: &Option<_>| {
                    let mut delta: LinearDelta =
                        kernels.load_low_rank(pair.as_ref()?, precision).unwrap().into();
                    delta.shift = shift.as_ref().map(|shift| kernels.load_vector(shift).unwrap());
                    Some(delta)
                };
                let slots: Vec<_> = pairs.iter().map(load).collect();
                let (base, targets) =
                    ((&weight, bias.as_ref()), [LoraTarget { columns: 0..out, slots: &slots }]);
                let wide = || candidate.act(&wide, width);
                let (mut got, mut want) = (candidate.act(&y, out), candidate.act(&y, out));
                kernels.add_feed_forward(&mut got, (wide(), between), base, &targets, segments).unwrap();
                let inner = kernels.inner(wide(), between).unwrap();
                kernels.add_adapted(&mut want, &inner, base, &targets, segments).unwrap();
                prop_assert!(bits(candidate, &got) == bits(candidate, &want), "{} {precision}", candidate.name);
            }
        }
    }
}

fn bits(candidate: &Candidate, y: &Act) -> Vec<u32> {
    candidate.read(y).into_iter().map(f32::to_bits).collect()
}

//! Known answers: the oracle itself must be right.
use super::Reference;
use crate::kernel::{
    Act, Activation, AttentionArgs, BaseWeight, Kernels, KvPrecision, KvShape, LoraTarget, LowRank,
    NormWeights, Precision, Reach, RopeKvArgs, RopeTable, RowSegment,
};
use candle_core::{Device, Tensor};

fn act(values: &[f32], cols: usize) -> Act {
    Reference.upload(values, values.len() / cols, cols).unwrap()
}

fn pack(values: &[f32], cols: usize, precision: Precision) -> BaseWeight {
    let tensor = Tensor::from_slice(values, (values.len() / cols, cols), &Device::Cpu).unwrap();
    Reference.pack(&[tensor], precision).unwrap()
}

#[test]
fn a_linear_layer_multiplies_by_the_transposed_weight_and_adds_the_bias() {
    let weight = pack(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 2, Precision::F32);
    let y = Reference.linear(&act(&[1.0, 10.0], 2), &weight, Some(&act(&[0.5, 0.0, -1.0], 3)));
    assert_eq!(y.unwrap().values().unwrap(), [21.5, 43.0, 64.0]);
}

#[test]
fn bf16_rounds_weights_and_activations_but_not_the_sum() {
    let fine = 1.0 + 1.0 / 1024.0; // bf16 has 8 bits of precision: rounds to 1
    let weight = pack(&[fine, 1.0 / 1024.0], 2, Precision::Bf16);
    let y = Reference.linear(&act(&[fine, 1.0], 2), &weight, None).unwrap();
    assert_eq!(y.values().unwrap(), [fine]);
}

#[test]
fn a_delta_reaches_the_rows_of_its_segment_alone() {
    let cpu = &Device::Cpu;
    let a = Tensor::from_slice(&[1.0_f32, 1.0], (1, 2), cpu).unwrap();
    let b = Tensor::from_slice(&[1.0_f32, -1.0], (1, 2), cpu).unwrap();
    let slots = [None, Some(LowRank::new(a, b).unwrap().into())];
    let segment = |rows, slot| RowSegment { rows, slot, weight: 2.0 };
    let (mut y, x) = (act(&[0.0; 6], 2), act(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 2));
    let target = LoraTarget { columns: 0..2, slots: &slots };
    let segments = [segment(0..1, 0), segment(1..2, 1)];
    Reference.add_lora(&mut y, &x, &[target], &segments).unwrap();
    assert_eq!(y.values().unwrap(), [0.0, 0.0, 14.0, -14.0, 0.0, 0.0]);
}

#[test]
fn a_norm_divides_each_row_or_head_by_its_root_mean_square() {
    let mut x = act(&[3.0, 3.0, -2.0, 2.0], 2);
    let y = Reference.rms_norm(&x, NormWeights::base(&act(&[1.0, 10.0], 2)), 0.0).unwrap();
    assert_eq!(y.values().unwrap(), [1.0, 10.0, -1.0, 10.0]);
    Reference.head_norm(&mut x, 1..2, NormWeights::base(&act(&[4.0], 1)), 0.0).unwrap();
    assert_eq!(x.values().unwrap(), [3.0, 4.0, -2.0, 4.0]);
}

#[test]
fn a_quarter_turn_moves_halves_of_queries_and_keys_and_writes_the_keys() {
    let angles = |values: [f32; 4]| Tensor::from_slice(&values, (2, 2), &Device::Cpu).unwrap();
    let (cos, sin) = (angles([1.0, 1.0, 0.0, 0.0]), angles([0.0, 0.0, 1.0, 1.0]));
    let table = RopeTable { cos, sin, head_dim: 4 };
    let precision = KvPrecision::F32;
    let shape =
        KvShape { layers: 1, blocks: 1, block_size: 2, kv_heads: 1, head_dim: 4, precision };
    let mut cache = Reference.new_kv(shape).unwrap();
    let (q, k, v) = ([1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0], [9.0; 4]);
    let mut qkv = act(&[q, k, v, q, k, v].concat(), 12);
    let args =
        RopeKvArgs { heads: 1, positions: &[0, 1], table: Some(&table), slot_mapping: &[1, 0] };
    Reference.rope_write_kv(&mut qkv, &mut cache, 0, &args).unwrap();
    let turned = [[-3.0, -4.0, 1.0, 2.0], [-7.0, -8.0, 5.0, 6.0]];
    let expected = [q, k, v, turned[0], turned[1], v].concat();
    assert_eq!(qkv.values().unwrap(), expected);
    let (keys, values) = cache.host_layer(0).unwrap();
    assert_eq!((keys, values), (&[turned[1], k].concat()[..], &[9.0; 8][..]));
}

#[test]
fn equal_keys_give_the_mean_of_the_values_seen() {
    let precision = KvPrecision::F32;
    let shape =
        KvShape { layers: 1, blocks: 3, block_size: 2, kv_heads: 1, head_dim: 1, precision };
    let mut cache = Reference.new_kv(shape).unwrap();
    let (_, values) = cache.host_layer_mut(0).unwrap();
    values.copy_from_slice(&[8.0, 20.0, 0.0, 0.0, 1.0, 3.0]);
    let attend = |window| {
        let args = AttentionArgs {
            block_tables: &[2, 0],
            block_starts: &[0, 2],
            query_starts: &[0, 2],
            context_lens: &[4],
            heads: 1,
            scale: 1.0,
            reach: Reach::Back(window),
        };
        let q = act(&[1.0, 7.0, 1.0, 7.0], 2);
        Reference.paged_attention(&q, &cache, 0, &args).unwrap().values().unwrap().to_vec()
    };
    assert_eq!(attend(None), [4.0, 8.0]);
    assert_eq!(attend(Some(2)), [5.5, 14.0]);
}

#[test]
fn gates_are_known_values() {
    let gate_up = act(&[1.0, -1.0, 2.0, 2.0], 4);
    let silu = Reference.gated(&gate_up, Activation::Silu).unwrap();
    let gelu = Reference.gated(&gate_up, Activation::GeluTanh).unwrap();
    let close = |got: &Act, want: [f32; 2]| {
        got.values().unwrap().iter().zip(want).all(|(got, want)| (got - want).abs() < 1e-5)
    };
    assert!(close(&silu, [1.462_117, -0.537_883]), "{silu:?}");
    assert!(close(&gelu, [1.682_384, -0.317_616]), "{gelu:?}");
}

#[test]
fn a_fingerprint_is_of_shape_precision_and_values() {
    let print =
        |values: &[f32], cols, precision| pack(values, cols, precision).fingerprint().unwrap();
    let first = print(&[1.0, 2.0], 2, Precision::F32);
    assert_eq!(first, print(&[1.0, 2.0], 2, Precision::F32));
    assert_ne!(first, print(&[1.0, 2.0], 1, Precision::F32));
    assert_ne!(first, print(&[1.0, 2.0], 2, Precision::Bf16));
    assert_ne!(first, print(&[1.0, 2.5], 2, Precision::F32));
}

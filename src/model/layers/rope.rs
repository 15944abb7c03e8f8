//! The cosines and sines of every position.
use crate::{
    kernel::{Result, RopeTable},
    model::spec::{RopeScaling, RopeSpec},
};
use candle_core::{Device, Tensor};
use candle_transformers::models::llama::Llama3RopeConfig;
use std::f64::consts::TAU;

/// Tables `[positions, head_dim / 2]` on the host.
///
/// Frequencies and angles are rounded to f32 where `transformers` (`modeling_rope_utils`) rounds them, so that far
/// positions agree with it.
pub(in crate::model) fn rope_table(
    rope: &RopeSpec,
    head_dim: usize,
    positions: usize,
) -> Result<RopeTable> {
    let frequencies = frequencies(rope, head_dim);
    let angles = (0..positions)
        .flat_map(|position| frequencies.iter().map(move |f| f64::from(position as f32 * f)));
    let (cos, sin): (Vec<f32>, Vec<f32>) =
        angles.map(|angle| (angle.cos() as f32, angle.sin() as f32)).unzip();
    let shape = (positions, head_dim / 2);
    Ok(RopeTable {
        cos: Tensor::from_vec(cos, shape, &Device::Cpu)?,
        sin: Tensor::from_vec(sin, shape, &Device::Cpu)?,
        head_dim,
    })
}

/// Radians a position, for each pair of a head's elements: `theta^(-2i / head_dim)`, scaled.
fn frequencies(rope: &RopeSpec, head_dim: usize) -> Vec<f32> {
    (0..head_dim / 2)
        .map(|pair| (pair, 1.0 / rope.theta.powf((2 * pair) as f64 / head_dim as f64) as f32))
        .map(|(pair, frequency)| match &rope.scaling {
            RopeScaling::None => frequency,
            RopeScaling::Divisors(divisors) => frequency / divisors[pair] as f32,
            RopeScaling::Linear { factor } => frequency / *factor as f32,
            RopeScaling::Llama3(bands) => llama3(frequency, bands),
        })
        .collect()
}

/// `_compute_llama3_parameters`: what turns often within the original context stays, what turns seldom is stretched.
fn llama3(frequency: f32, bands: &Llama3RopeConfig) -> f32 {
    let turns = bands.original_max_position_embeddings as f64 * f64::from(frequency) / TAU;
    let stretched = f64::from(frequency) / f64::from(bands.factor);
    let (low, high) = (f64::from(bands.low_freq_factor), f64::from(bands.high_freq_factor));
    if turns > high {
        return frequency;
    }
    if turns < low {
        return stretched as f32;
    }
    let kept = (turns - low) / (high - low);
    ((1.0 - kept) * stretched + kept * f64::from(frequency)) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(scaling: RopeScaling) -> RopeSpec {
        RopeSpec { theta: 10_000.0, scaling }
    }

    fn close(a: f32, b: f32) -> bool {
        (a - b).abs() <= 1e-6 * b.abs().max(1e-6)
    }

    #[test]
    fn plain_frequencies_fall_from_one_to_theta() {
        let frequencies = frequencies(&spec(RopeScaling::None), 8);
        let expected = [1.0, 0.1, 0.01, 0.001];
        assert!(frequencies.iter().zip(expected).all(|(f, e)| close(*f, e)), "{frequencies:?}");
    }

    #[test]
    fn linear_scaling_divides_every_frequency() {
        let scaled = frequencies(&spec(RopeScaling::Linear { factor: 4.0 }), 8);
        let expected = [0.25, 0.025, 0.0025, 0.00025];
        assert!(scaled.iter().zip(expected).all(|(f, e)| close(*f, e)), "{scaled:?}");
    }

    #[test]
    fn llama3_keeps_high_stretches_low_and_ramps_between() {
        let bands = Llama3RopeConfig {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position_embeddings: 64,
            rope_type: candle_transformers::models::llama::Llama3RopeType::Llama3,
        };
        // 64 positions turn 10.2, 1.02, 0.1 and 0.01 times at these frequencies.
        let scaled = frequencies(&spec(RopeScaling::Llama3(bands)), 8);
        let kept = (64.0 * 0.1 / TAU - 1.0) / 3.0;
        let ramp = ((1.0 - kept) / 8.0 + kept) * 0.1;
        let expected = [1.0, ramp as f32, 0.01 / 8.0, 0.001 / 8.0];
        assert!(scaled.iter().zip(expected).all(|(f, e)| close(*f, e)), "{scaled:?}");
    }

    #[test]
    fn the_table_holds_each_positions_angle() {
        let table = rope_table(&spec(RopeScaling::None), 4, 3).unwrap();
        let cos = table.cos.to_vec2::<f32>().unwrap();
        let sin = table.sin.to_vec2::<f32>().unwrap();
        assert_eq!((cos[0][1], sin[0][1]), (1.0, 0.0));
        assert!(close(cos[2][0], 2f32.cos()) && close(sin[2][1], 0.02f32.sin()));
    }
}

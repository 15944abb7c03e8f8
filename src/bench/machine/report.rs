//! Limits and products as text and JSON.
use super::{products::Timing, shapes::Shapes};
use crate::kernel::{Operands, Peaks, Precision};
use serde::Serialize;
use std::fmt;

/// Everything measured on a machine.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Report {
    machine: String,
    /// 10⁹ bytes a second with one thread, two, and so on.
    read: Vec<f64>,
    peaks: Vec<Peak>,
    model: String,
    /// Numbers in the model's weights.
    weights: usize,
    products: Vec<Product>,
}

/// A way to multiply, operands in registers.
#[derive(Clone, Debug, Serialize)]
struct Peak {
    operands: String,
    instructions: &'static str,
    /// 10⁹ multiplications and additions a second.
    giga_per_second: f64,
}

/// All weights of a part, once.
#[derive(Clone, Debug, Serialize)]
struct Product {
    part: &'static str,
    precision: String,
    rows: usize,
    milliseconds: f64,
    /// 10⁹ bytes of weights a second.
    gigabytes_per_second: f64,
    /// Of the memory's.
    share_of_read: f64,
    /// 10⁹ multiplications and additions a second.
    giga_per_second: f64,
    /// Of the fastest instructions for these operands.
    share_of_peak: f64,
}

impl Report {
    pub(super) fn new(
        machine: String,
        peaks: &Peaks,
        shapes: &Shapes,
        products: &[Timing],
    ) -> Self {
        let peak = |peak: &crate::kernel::ProductPeak| Peak {
            operands: peak.operands.to_string(),
            instructions: peak.instructions,
            giga_per_second: peak.per_second / 1e9,
        };
        Self {
            machine,
            read: peaks.reads.iter().map(|bytes| bytes / 1e9).collect(),
            peaks: peaks.products.iter().map(peak).collect(),
            model: shapes.model.clone(),
            weights: shapes.weights(),
            products: products.iter().map(|timing| Product::new(timing, peaks)).collect(),
        }
    }
}

impl Product {
    fn new(timing: &Timing, peaks: &Peaks) -> Self {
        let bytes = timing.bytes as f64 / timing.seconds;
        let operations = timing.operations as f64 / timing.seconds;
        Self {
            part: timing.part,
            precision: timing.precision.to_string(),
            rows: timing.rows,
            milliseconds: timing.seconds * 1e3,
            gigabytes_per_second: bytes / 1e9,
            share_of_read: bytes / peaks.read(),
            giga_per_second: operations / 1e9,
            share_of_peak: operations / peaks.product(operands(timing.precision)),
        }
    }
}

/// What a product at a precision multiplies; weights of four bits are widened to eight.
fn operands(precision: Precision) -> Operands {
    match precision {
        Precision::F32 => Operands::F32,
        Precision::Auto | Precision::Bf16 => Operands::Bf16,
        Precision::Int8 | Precision::Int4 => Operands::Int8,
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.machine)?;
        for (read, threads) in self.read.iter().zip(1..) {
            writeln!(f, "reading memory, {threads} threads: {read:.1} GB/s")?;
        }
        for Peak { operands, instructions, giga_per_second } in &self.peaks {
            writeln!(f, "multiplying {operands}, {instructions}: {giga_per_second:.0} GFLOP/s")?;
        }
        writeln!(
            f,
            "\nproducts of {}, {:.1} million weights",
            self.model,
            self.weights as f64 / 1e6
        )?;
        writeln!(f, "part    precision  rows        ms     GB/s  of reading   GFLOP/s  of peak")?;
        self.products.iter().try_for_each(|product| writeln!(f, "{product}"))
    }
}

impl fmt::Display for Product {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:<7} {:<9} {:>5} {:>9.3} {:>8.1} {:>10.0}% {:>9.1} {:>7.0}%",
            self.part,
            self.precision,
            self.rows,
            self.milliseconds,
            self.gigabytes_per_second,
            self.share_of_read * 100.0,
            self.giga_per_second,
            self.share_of_peak * 100.0
        )
    }
}

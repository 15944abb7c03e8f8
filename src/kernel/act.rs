//! Activations: f32 rows on their way through the model.
use super::cpu::{Buffer, Buffers};
use super::{KernelError, Result};
use candle_core::Tensor;

/// `[rows, cols]` f32, row-major. Where they lie is the kernel's business.
#[derive(Debug)]
pub struct Act {
    rows: usize,
    cols: usize,
    pub(super) data: ActData,
    /// Where host memory goes when it is no longer needed.
    home: Option<Buffers<f32>>,
}

impl Drop for Act {
    fn drop(&mut self) {
        if let (ActData::Host(values), Some(home)) = (&mut self.data, &self.home) {
            home.give(std::mem::take(values));
        }
    }
}

/// Where the values are.
#[derive(Debug)]
pub(super) enum ActData {
    /// Host memory of the CPU kernels, `rows * cols` long or longer.
    Host(Buffer<f32>),
    /// A candle tensor `[rows, cols]` f32.
    Device(Tensor),
}

impl Act {
    /// From host values; the caller has checked the length.
    pub(super) fn host(values: impl Into<Buffer<f32>>, rows: usize, cols: usize) -> Self {
        let values = values.into();
        debug_assert!(values.len() >= rows * cols, "the kernel sized its buffer");
        Self { rows, cols, data: ActData::Host(values), home: None }
    }

    /// From host values that go back to `home` in the end.
    pub(super) fn recycled(
        values: Buffer<f32>,
        rows: usize,
        cols: usize,
        home: &Buffers<f32>,
    ) -> Self {
        let mut act = Self::host(values, rows, cols);
        act.home = Some(home.clone());
        act
    }

    /// So many rows as long as these, of arbitrary value, in host memory that goes where this one's goes.
    pub(super) fn with_rows(&self, rows: usize) -> Self {
        match &self.home {
            Some(home) => Self::recycled(home.take(rows * self.cols), rows, self.cols, home),
            None => Self::host(vec![0.0; rows * self.cols], rows, self.cols),
        }
    }

    /// From a tensor `[rows, cols]`.
    pub(super) fn device(tensor: Tensor, rows: usize, cols: usize) -> Self {
        Self { rows, cols, data: ActData::Device(tensor), home: None }
    }

    /// How many rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// How many values a row has.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Both.
    pub(super) fn shape(&self) -> [usize; 2] {
        [self.rows, self.cols]
    }

    /// The values of host activations.
    pub(super) fn values(&self) -> Result<&[f32]> {
        match &self.data {
            ActData::Host(values) => Ok(&values[..self.rows * self.cols]),
            ActData::Device(_) => Err(foreign()),
        }
    }

    /// The values of host activations, to change in place.
    pub(super) fn values_mut(&mut self) -> Result<&mut [f32]> {
        let len = self.rows * self.cols;
        match &mut self.data {
            ActData::Host(values) => Ok(&mut values[..len]),
            ActData::Device(_) => Err(foreign()),
        }
    }

    /// The tensor of device activations.
    pub(super) fn tensor(&self) -> Result<&Tensor> {
        match &self.data {
            ActData::Device(tensor) => Ok(tensor),
            ActData::Host(_) => Err(foreign()),
        }
    }
}

fn foreign() -> KernelError {
    KernelError::mismatch("activations", "they belong to another implementation of the kernels")
}

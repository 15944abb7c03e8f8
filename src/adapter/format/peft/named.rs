//! A tensor of the file with its name: shapes and values, checked.
use crate::adapter::{
    AdapterError,
    format::tensors::{quoted, to_f32},
};
use candle_core::{Device, Shape, Tensor};
use safetensors::tensor::TensorView;
use std::fmt;

/// A tensor and what it is called, for messages.
#[derive(Clone, Copy, Debug)]
pub(super) struct Named<'a> {
    pub(super) name: &'a str,
    pub(super) view: &'a TensorView<'a>,
}

impl Named<'_> {
    /// Elements.
    pub(super) fn len(&self) -> usize {
        self.view.shape().iter().product()
    }

    /// # Errors
    /// When it is not a matrix of at least one element.
    pub(super) fn matrix(&self) -> Result<[usize; 2], AdapterError> {
        match self.view.shape() {
            [rows, columns] if *rows > 0 && *columns > 0 => Ok([*rows, *columns]),
            other => Err(AdapterError::invalid(format!(
                "tensor {self} has shape {other:?}; it should be a matrix: a factor is a matrix, and so is a weight"
            ))),
        }
    }

    /// # Errors
    /// When the shape is another. `axes` says what its axes are.
    pub(super) fn check(&self, wanted: &[usize], axes: &str) -> Result<(), AdapterError> {
        let found = self.view.shape();
        if wanted.len() == 2 {
            self.matrix()?;
        }
        if found == wanted {
            return Ok(());
        }
        Err(AdapterError::invalid(match (found, wanted, axes) {
            ([tokens, width], [vocab, hidden], "[vocab, hidden]") if width == hidden => format!(
                "tensor {self} has rows for {tokens} tokens, and the model has {vocab}: a base with added or removed \
                 tokens is another base"
            ),
            _ => format!(
                "tensor {self} has shape {found:?}; this model and adapter_config.json make it {wanted:?} ({axes}): \
                 was the adapter made for another base, or with another r?"
            ),
        }))
    }

    /// The elements of a tensor of this shape, in its order.
    ///
    /// # Errors
    /// When the shape is another, the type is not served, or an element is not finite.
    pub(super) fn values(&self, wanted: &[usize], axes: &str) -> Result<Vec<f32>, AdapterError> {
        self.check(wanted, axes)?;
        to_f32(self.name, self.view)
    }

    /// As [`Named::values`], as a tensor.
    ///
    /// # Errors
    /// As [`Named::values`].
    pub(super) fn tensor(&self, wanted: &[usize], axes: &str) -> Result<Tensor, AdapterError> {
        tensor(self.values(wanted, axes)?, wanted)
    }
}

/// The name, quoted.
impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&quoted(self.name))
    }
}

/// Values as a tensor on the host.
///
/// # Errors
/// When there are not as many as the shape has.
pub(super) fn tensor(values: Vec<f32>, shape: impl Into<Shape>) -> Result<Tensor, AdapterError> {
    Tensor::from_vec(values, shape, &Device::Cpu).map_err(|error| unusable(&error))
}

/// A tensor library's refusal, which no file should be able to cause.
pub(super) fn unusable(error: &dyn fmt::Display) -> AdapterError {
    AdapterError::invalid(format!("the adapter's tensors cannot be used: {error}"))
}

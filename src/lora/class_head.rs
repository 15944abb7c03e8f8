//! Classification heads: labels, and what scores them.
use crate::kernel::{Act, BaseWeight, Kernels, Precision, Result};
use candle_core::{DType, Tensor};
use std::sync::Arc;

/// What gets labels.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum HeadKind {
    /// A whole text: `SEQ_CLS`.
    Sequence,
    /// Each token: `TOKEN_CLS`.
    Token,
}

/// The labels of a head, and how their scores become probabilities.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Labels {
    /// What gets them.
    pub kind: HeadKind,
    /// Their names, in the order of the scores.
    pub names: Arc<[String]>,
    /// How the scores become probabilities.
    pub reading: Reading,
}

/// What a head's scores say.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Reading {
    /// One of the labels fits: a softmax.
    #[default]
    OneOf,
    /// Each label is true or not by itself: a sigmoid. So it is with one label alone, and where `problem_type` says
    /// `multi_label_classification`.
    Independent,
    /// Nothing but themselves, as some cross-encoders' makers want it: probabilities are the scores.
    Raw,
}

/// A whole head in host memory: an adapter's own, or the base's.
#[derive(Clone, Debug)]
pub struct ClassHead {
    /// What it scores.
    pub labels: Labels,
    /// `[labels, in]` f32
    pub weight: Tensor,
    /// `[labels]` f32
    pub bias: Option<Tensor>,
}

/// A head on the device. It is small and stays in f32, whatever the base is stored in.
#[derive(Clone, Debug)]
pub struct ResidentHead {
    /// What it scores.
    pub labels: Labels,
    /// `[labels, in]`
    pub weight: Arc<BaseWeight>,
    /// `[1, labels]`
    pub bias: Option<Arc<Act>>,
}

/// What a model's classification heads are like.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ClassHeadShape {
    /// Columns of a head's weight.
    pub in_features: usize,
    /// Whether heads have a bias.
    pub biased: bool,
    /// What the model's heads may score.
    pub kinds: &'static [HeadKind],
    /// The base's own labels, where it has a head.
    pub base: Option<Labels>,
    /// Whether the base has its layer before the head, [`Site::HeadDense`](super::Site::HeadDense); where not, an adapter
    /// that classifies texts brings it whole. `true` where the family has none.
    pub has_dense: bool,
}

impl ClassHead {
    /// Host bytes.
    pub fn bytes(&self) -> usize {
        let values = self.weight.elem_count() + self.bias.as_ref().map_or(0, Tensor::elem_count);
        values * DType::F32.size_in_bytes()
    }

    /// Brought to the device.
    ///
    /// # Errors
    /// When the device fails.
    pub fn load(&self, kernels: &dyn Kernels) -> Result<ResidentHead> {
        let upload = |bias: &Tensor| -> Result<_> {
            let values = bias.to_dtype(DType::F32)?.to_vec1::<f32>()?;
            Ok(Arc::new(kernels.upload(&values, 1, values.len())?))
        };
        Ok(ResidentHead {
            labels: self.labels.clone(),
            weight: Arc::new(kernels.load_rows(&self.weight, Precision::F32)?),
            bias: self.bias.as_ref().map(upload).transpose()?,
        })
    }
}

impl ResidentHead {
    /// Bytes on the device.
    pub fn bytes(&self) -> usize {
        let bias = self.bias.as_ref().map_or(0, |bias| bias.cols() * size_of::<f32>());
        self.weight.bytes() + bias
    }
}

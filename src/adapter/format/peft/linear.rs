//! What an adapter changes at a linear layer.
use super::{
    config::LoraConfig,
    dora::{self, Factors},
    keys::Role,
    module::Module,
    named::{Named, tensor, unusable},
    parts::Parts,
    tokens,
};
use crate::{
    adapter::AdapterError,
    lora::{FrozenBase, LinearDelta, LowRank, Site, SiteShape, TrainedRows},
};
use candle_core::Tensor;

/// One layer of the file, and what it stands on.
pub(super) struct Layer<'a> {
    pub(super) site: Site,
    pub(super) shape: SiteShape,
    pub(super) parts: &'a Parts<'a>,
    pub(super) config: &'a LoraConfig,
    /// `None`: what depends on the base's values is left out.
    pub(super) base: Option<&'a dyn FrozenBase>,
    /// Tokens whose rows of the head `parts` has.
    pub(super) tokens: Option<&'a [u32]>,
}

impl Layer<'_> {
    /// # Errors
    /// When a tensor has a wrong shape or is not finite, or the base cannot be read.
    pub(super) fn delta(&self) -> Result<LinearDelta<Tensor>, AdapterError> {
        let mut pair = self.pair()?;
        let trained = self.trained()?;
        let gain = match (&mut pair, &trained) {
            (Some(pair), _) if self.parts.has(Role::Magnitude) => self.dora(pair)?,
            (_, Some(trained)) if self.base.is_some() => {
                Some(kept(trained, self.shape.out_features))
            }
            _ => None,
        };
        let out = self.shape.out_features;
        let shift = self.shift(gain.as_deref())?;
        let vector =
            |values: Option<Vec<f32>>| values.map(|values| tensor(values, out)).transpose();
        Ok(LinearDelta {
            low_rank: pair.map(|pair| low_rank(pair, self.shape)).transpose()?,
            gain: vector(gain)?,
            shift: vector(shift)?,
            trained,
        })
    }

    /// The factors, scaling in `b`.
    fn pair(&self) -> Result<Option<Factors>, AdapterError> {
        let Some((a, b)) = self.parts.pair() else { return Ok(None) };
        let (path, SiteShape { in_features, out_features }) = (self.path(), self.shape);
        let rank = self.config.rank.at(&path)?;
        let a = a.values(&[rank, in_features], "[rank, in]")?;
        let values = b.values(&[out_features, rank], "[out, rank]")?;
        let turned = scaled_transpose(&values, rank, self.config.scaling(&path, rank)?);
        check_scaled(&turned, b)?;
        Ok(Some(Factors { rank, a, b: turned }))
    }

    /// The gain of `DoRA`, folded into `b` as well. Without a base there is none to know.
    fn dora(&self, pair: &mut Factors) -> Result<Option<Vec<f32>>, AdapterError> {
        let (Some(named), out) = (self.parts.get(Role::Magnitude), self.shape.out_features) else {
            return Ok(None);
        };
        let magnitude = named.values(&[out], "[out]")?;
        let Some(base) = self.base else { return Ok(None) };
        let norms = dora::row_norms(base, self.site, self.shape, pair)?;
        let gain = dora::gain(&magnitude, &norms, named)?;
        for row in pair.b.chunks_exact_mut(out) {
            row.iter_mut().zip(&gain).for_each(|(b, gain)| *b *= gain);
        }
        check_scaled(&pair.b, named)?;
        Ok(Some(gain))
    }

    /// Rows that take the place of the base's: all of them, or those of some tokens at the head.
    fn trained(&self) -> Result<Option<TrainedRows<Tensor>>, AdapterError> {
        let SiteShape { in_features, out_features } = self.shape;
        let axes = if self.site == Site::Head { "[vocab, hidden]" } else { "[out, in]" };
        match self.parts.get(Role::Weight) {
            Some(weight) => {
                let weight = weight.tensor(&[out_features, in_features], axes)?;
                Ok(Some(TrainedRows { weight, ids: None }))
            }
            None => tokens::trained(self.parts, self.tokens, [out_features, in_features]),
        }
    }

    /// New bias minus what the gain leaves of the base's, plus the scaled bias of `B`.
    fn shift(&self, gain: Option<&[f32]>) -> Result<Option<Vec<f32>>, AdapterError> {
        let out = [self.shape.out_features];
        let of_b = self.parts.get(Role::BBias);
        let of_b = of_b.map(|bias| self.scaled_bias(bias)).transpose()?;
        let own = self.parts.get(Role::TargetBias).or_else(|| self.parts.get(Role::Bias));
        let bias = self.base.and_then(|base| base.bias(self.site));
        let new = own.map(|named| named.values(&out, "[out]")).transpose()?;
        let moved = match (new, bias, gain) {
            (None, None, _) | (None, Some(_), None) => None,
            (Some(new), None, _) => Some(new),
            (new, Some(bias), gain) => {
                let kept = |at: usize| gain.map_or(1.0, |gain| gain[at]) * bias[at];
                let new = new.as_deref().unwrap_or(bias);
                Some(new.iter().enumerate().map(|(at, new)| new - kept(at)).collect())
            }
        };
        let shift = match (moved, of_b) {
            (Some(moved), Some(of_b)) => Some(moved.iter().zip(of_b).map(|(x, y)| x + y).collect()),
            (moved, of_b) => moved.or(of_b),
        };
        if let (Some(shift), Some(named)) = (&shift, own.or(self.parts.get(Role::BBias))) {
            check_scaled(shift, named)?;
        }
        Ok(shift)
    }

    fn path(&self) -> String {
        self.config.path(Module::Linear(self.site))
    }

    fn scaled_bias(&self, bias: Named<'_>) -> Result<Vec<f32>, AdapterError> {
        let path = self.path();
        let scaling = self.config.scaling(&path, self.config.rank.at(&path)?)?;
        let values = bias.values(&[self.shape.out_features], "[out]")?;
        Ok(values.into_iter().map(|value| value * scaling).collect())
    }

    /// The layer's shape as the file has it, where no model says it.
    ///
    /// # Errors
    /// When a tensor that says it has another number of axes.
    pub(super) fn shape_in_file(
        parts: &Parts<'_>,
        tokens: Option<&[u32]>,
    ) -> Result<SiteShape, AdapterError> {
        if let Some((a, b)) = parts.pair() {
            return Ok(SiteShape { in_features: a.matrix()?[1], out_features: b.matrix()?[0] });
        }
        if let Some(weight) = parts.get(Role::Weight) {
            let [out_features, in_features] = weight.matrix()?;
            return Ok(SiteShape { in_features, out_features });
        }
        if let Some(rows) = parts.get(Role::TokenRows) {
            let highest = tokens.and_then(|ids| ids.iter().max()).map_or(0, |id| *id as usize);
            return Ok(SiteShape { in_features: rows.matrix()?[1], out_features: highest + 1 });
        }
        let longest = parts.iter().map(|(_, tensor)| tensor.len()).max();
        Ok(SiteShape { in_features: 0, out_features: longest.unwrap_or(0) })
    }
}

/// What the trained rows leave of the base: 0 where they stand, 1 elsewhere.
fn kept(trained: &TrainedRows<Tensor>, out: usize) -> Vec<f32> {
    let Some(ids) = &trained.ids else { return vec![0.0; out] };
    let mut kept = vec![1.0; out];
    ids.iter().for_each(|id| kept[*id as usize] = 0.0);
    kept
}

/// # Errors
/// When a value is not finite any more.
pub(super) fn check_scaled(values: &[f32], named: Named<'_>) -> Result<(), AdapterError> {
    if values.iter().all(|value| value.is_finite()) {
        return Ok(());
    }
    Err(AdapterError::invalid(format!(
        "tensor {named} times the scaling of lora_alpha or the gain of DoRA is not finite"
    )))
}

/// As the kernels take them.
///
/// # Errors
/// None that a file can cause.
pub(super) fn low_rank(pair: Factors, shape: SiteShape) -> Result<LowRank, AdapterError> {
    let a = tensor(pair.a, (pair.rank, shape.in_features))?;
    let b = tensor(pair.b, (pair.rank, shape.out_features))?;
    LowRank::new(a, b).map_err(|error| unusable(&error))
}

/// `[out, rank]` → `[rank, out]`, times `scaling`.
pub(super) fn scaled_transpose(b: &[f32], rank: usize, scaling: f32) -> Vec<f32> {
    let out = b.len() / rank;
    let mut transposed = vec![0.0; b.len()];
    for (row, values) in b.chunks_exact(rank).enumerate() {
        for (column, value) in values.iter().enumerate() {
            transposed[column * out + row] = value * scaling;
        }
    }
    transposed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b_is_turned_and_scaled() {
        assert_eq!(
            scaled_transpose(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 2, 2.0),
            [2.0, 6.0, 10.0, 4.0, 8.0, 12.0]
        );
    }
}

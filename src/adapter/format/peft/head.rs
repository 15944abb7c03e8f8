//! Classification heads: an adapter's own, the base's with what the adapter changes of it, or the base's as it is.
use super::{
    config::LoraConfig,
    keys::Role,
    linear::check_scaled,
    module::Module,
    named::{Named, tensor},
    parts::{Modules, Parts},
    task::{Task, task_type},
};
use crate::{
    adapter::{AdapterError, format::table::Fit},
    lora::{ClassHead, ClassHeadShape, HeadKind, Labels, LoraLayout, ModuleNames},
};
use candle_core::Tensor;

/// What an adapter scores, if it does.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) labels: Option<Labels>,
    /// `None`: the base's own serves, or what it is made of was not to be had.
    pub(super) head: Option<ClassHead>,
}

/// # Errors
/// When tensors do not make a head that fits the model, or there is none at all.
pub(super) fn read(
    config: &LoraConfig,
    modules: &Modules<'_>,
    fit: Fit<'_>,
) -> Result<Found, AdapterError> {
    let parts = modules.get(&Module::Classifier);
    let Some(kind) = kind(config, modules, fit.layout())? else {
        if config.labels.is_said() {
            return Err(AdapterError::invalid(
                "the adapter has labels and scores none: `task_type` of adapter_config.json should be SEQ_CLS or TOKEN_CLS",
            ));
        }
        return Ok(Found::default());
    };
    let shape = fit.layout().and_then(LoraLayout::class_head);
    let reader = Reader { config, kind, shape, fit };
    match parts {
        Some(parts) if parts.has(Role::Weight) => reader.own(parts),
        Some(parts) => reader.moved(parts),
        None => reader.of_base(),
    }
}

/// What the head scores: as `task_type` says, or else as its tensors or the base do.
fn kind(
    config: &LoraConfig,
    modules: &Modules<'_>,
    layout: Option<&LoraLayout>,
) -> Result<Option<HeadKind>, AdapterError> {
    let (names, shape) = (config.paths.names, layout.and_then(LoraLayout::class_head));
    match config.task {
        Task::Classify(kind) => return Ok(Some(kind)),
        Task::Unsaid if modules.contains_key(&Module::Classifier) => {}
        Task::Unsaid | Task::Embed | Task::Generate => return Ok(None),
    }
    let told = names.classifier(HeadKind::Sequence) != names.classifier(HeadKind::Token);
    let before = matches!(names, ModuleNames::Bert | ModuleNames::DistilBert)
        && modules.contains_key(&Module::HEAD_DENSE);
    let kind = match shape.map(|shape| (&shape.base, shape.kinds)) {
        _ if told => Some(config.paths.kind),
        _ if before || names == ModuleNames::Decoder => Some(HeadKind::Sequence),
        Some((_, [kind])) => Some(*kind),
        Some((Some(labels), _)) => Some(labels.kind),
        _ => None,
    };
    kind.map(Some).ok_or_else(|| {
        AdapterError::invalid(
            "adapter_config.json has no `task_type`, and the head may score texts or tokens: say SEQ_CLS or TOKEN_CLS",
        )
    })
}

struct Reader<'a> {
    config: &'a LoraConfig,
    kind: HeadKind,
    shape: Option<&'a ClassHeadShape>,
    fit: Fit<'a>,
}

impl Reader<'_> {
    fn base_labels(&self) -> Option<&Labels> {
        self.shape.and_then(|shape| shape.base.as_ref()).filter(|labels| labels.kind == self.kind)
    }

    fn labels(&self, count: usize) -> Result<Labels, AdapterError> {
        self.config.labels.of(count, self.kind, self.base_labels())
    }

    /// A head that the adapter brings whole.
    fn own(&self, parts: &Parts<'_>) -> Result<Found, AdapterError> {
        let Some(weight) = parts.get(Role::Weight) else { return Ok(Found::default()) };
        let [count, in_features] = weight.matrix()?;
        if let Some(shape) = self.shape.filter(|shape| shape.in_features != in_features) {
            return Err(AdapterError::invalid(format!(
                "tensor {weight} has shape [{count}, {in_features}]; a head of this model reads {} numbers: was the \
                 adapter made for another base?",
                shape.in_features
            )));
        }
        for role in [Role::SavedBias, Role::OriginalBias] {
            parts.get(role).map_or(Ok(()), |copy| copy.check(&[count], "[labels]"))?;
        }
        let labels = self.labels(count)?;
        let bias =
            parts.get(Role::Bias).map(|bias| bias.tensor(&[count], "[labels]")).transpose()?;
        let weight = weight.tensor(&[count, in_features], "[labels, in]")?;
        let head = ClassHead { labels: labels.clone(), weight, bias };
        Ok(Found { labels: Some(labels), head: Some(head) })
    }

    /// The base's own head with what the adapter changes of it, whole.
    fn moved(&self, parts: &Parts<'_>) -> Result<Found, AdapterError> {
        let labels = self.base_labels().cloned();
        let Some(base) = self.fit.base() else {
            let missing = self.fit.layout().is_some() && labels.is_none();
            return if missing { Err(self.missing()) } else { Ok(Found { labels, head: None }) };
        };
        let own = base.class_head().filter(|head| head.labels.kind == self.kind);
        let own = own.ok_or_else(|| self.missing())?;
        let unreadable =
            |error: candle_core::Error| AdapterError::Store(std::io::Error::other(error));
        let (count, wide) = own.weight.dims2().map_err(unreadable)?;
        let weight =
            own.weight.flatten_all().and_then(|w| w.to_vec1::<f32>()).map_err(unreadable)?;
        let bias = own.bias.as_ref().map(Tensor::to_vec1::<f32>).transpose();
        let merge = Merge { config: self.config, parts, count, wide };
        let weight = merge.weight(weight)?;
        let bias = merge.bias(bias.map_err(unreadable)?)?;
        let labels = self.labels(count)?;
        let head = ClassHead {
            labels: labels.clone(),
            weight: tensor(weight, (count, wide))?,
            bias: bias.map(|bias| tensor(bias, count)).transpose()?,
        };
        Ok(Found { labels: Some(labels), head: Some(head) })
    }

    /// The base's own, under the adapter's names if it has any.
    fn of_base(&self) -> Result<Found, AdapterError> {
        if self.shape.is_none() {
            return Ok(Found::default());
        }
        let own = self.base_labels().ok_or_else(|| self.missing())?;
        let labels = self.labels(own.names.len())?;
        let head = self.fit.base().and_then(|base| base.class_head()).filter(|_| labels != *own);
        let head = head.map(|head| ClassHead { labels: labels.clone(), ..head.clone() });
        Ok(Found { labels: Some(labels), head })
    }

    fn missing(&self) -> AdapterError {
        let path = self.config.path(Module::Classifier);
        let saved = path.split('.').next().unwrap_or(&path);
        AdapterError::unsupported(format!(
            "adapter_config.json has `task_type` = `\"{}\"`, the adapter has no `{path}.weight`, and the base has no such \
             head of its own: train the adapter with modules_to_save=[\"{saved}\"]",
            task_type(self.kind)
        ))
    }
}

/// A head of `count` rows of `wide` numbers, and what an adapter adds to it.
struct Merge<'a> {
    config: &'a LoraConfig,
    parts: &'a Parts<'a>,
    count: usize,
    wide: usize,
}

impl Merge<'_> {
    /// `W + s·B·A`, and with `DoRA` each row at its magnitude.
    fn weight(&self, mut weight: Vec<f32>) -> Result<Vec<f32>, AdapterError> {
        let Some((a, b)) = self.parts.pair() else { return Ok(weight) };
        let path = self.config.path(Module::Classifier);
        let rank = self.config.rank.at(&path)?;
        let scaling = self.config.scaling(&path, rank)?;
        let a = a.values(&[rank, self.wide], "[rank, in]")?;
        let values = b.values(&[self.count, rank], "[labels, rank]")?;
        for (row, factors) in weight.chunks_mut(self.wide).zip(values.chunks(rank)) {
            for (factor, a) in factors.iter().zip(a.chunks(self.wide)) {
                row.iter_mut().zip(a).for_each(|(w, a)| *w += scaling * factor * a);
            }
        }
        if let Some(magnitude) = self.parts.get(Role::Magnitude) {
            self.scale(&mut weight, magnitude)?;
        }
        check_scaled(&weight, b)?;
        Ok(weight)
    }

    fn scale(&self, weight: &mut [f32], named: Named<'_>) -> Result<(), AdapterError> {
        let magnitude = named.values(&[self.count], "[labels]")?;
        for (row, magnitude) in weight.chunks_mut(self.wide).zip(magnitude) {
            let norm = row.iter().map(|w| f64::from(*w).powi(2)).sum::<f64>().sqrt();
            let gain = (f64::from(magnitude) / norm) as f32;
            for w in row {
                *w *= gain;
            }
        }
        check_scaled(weight, named)
    }

    /// The new bias, or the base's, with that of `B`.
    fn bias(&self, base: Option<Vec<f32>>) -> Result<Option<Vec<f32>>, AdapterError> {
        let read = |named: Named<'_>| named.values(&[self.count], "[labels]");
        let own = self.parts.get(Role::TargetBias).or_else(|| self.parts.get(Role::Bias));
        let bias = own.map(read).transpose()?.or(base);
        let Some(of_b) = self.parts.get(Role::BBias) else { return Ok(bias) };
        let path = self.config.path(Module::Classifier);
        let scaling = self.config.scaling(&path, self.config.rank.at(&path)?)?;
        let mut bias = bias.unwrap_or_else(|| vec![0.0; self.count]);
        bias.iter_mut().zip(read(of_b)?).for_each(|(sum, b)| *sum += scaling * b);
        check_scaled(&bias, of_b)?;
        Ok(Some(bias))
    }
}

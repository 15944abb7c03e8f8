//! What is known of an adapter once it has been read: the answer to its upload.
use crate::{
    adapter::{AdapterDescription, AdapterName, VersionId},
    generation::Probe,
    http::AppState,
};
use serde_json::{Value, json};
use std::sync::Arc;

/// See each field of the answer in README.
pub(super) struct Report {
    pub(super) name: AdapterName,
    pub(super) version: VersionId,
    pub(super) outcome: &'static str,
    pub(super) previous: Option<VersionId>,
    pub(super) durable: bool,
    pub(super) probe: Option<Value>,
    pub(super) warnings: Vec<String>,
    pub(super) description: Arc<AdapterDescription>,
}

impl Report {
    pub(super) fn new(
        app: &AppState,
        name: &AdapterName,
        version: VersionId,
        description: &Arc<AdapterDescription>,
    ) -> Self {
        let base = &app.generator.model().name;
        Self {
            name: name.clone(),
            version,
            outcome: "valid",
            previous: None,
            durable: app.registry.is_durable(),
            probe: None,
            warnings: description.warnings(base, app.registry.layout()),
            description: Arc::clone(description),
        }
    }

    /// With what unpacking brought up, first.
    pub(super) fn with_warnings(mut self, more: &[String]) -> Self {
        self.warnings.splice(0..0, more.iter().cloned());
        self
    }

    pub(super) fn json(self) -> Value {
        let about = &self.description;
        let mut report = json!({
            "name": self.name.as_str(),
            "version": self.version.to_string(),
            "outcome": self.outcome,
            "previous": self.previous.map(|version| version.to_string()),
            "durable": self.durable,
            "kind": about.kind,
            "task": about.task,
            "labels": about.labels,
            "head": about.head,
            "rank": about.rank(),
            "alpha": about.alpha,
            "bytes": about.bytes,
            "file_bytes": about.file_bytes,
            "parameters": about.parameters,
            "sites": about.sites,
            "layers": about.layers,
            "target_modules": about.target_modules,
            "base_model": about.base_model,
            "delta_norm": about.delta_norm,
            "projections": about.projections,
            "ignored_fields": about.ignored_fields,
            "warnings": self.warnings,
        });
        if let Some(probe) = self.probe {
            report["probe"] = probe;
        }
        report
    }
}

/// Both texts of a probe.
pub(super) fn both(probe: &Probe) -> Value {
    json!({"base": probe.base, "adapter": probe.adapter.as_deref().unwrap_or_default()})
}

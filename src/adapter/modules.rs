//! Adapters that the settings name: vLLM's `--lora-modules`.
use super::{
    AdapterError, AdapterFiles, AdapterLimits, AdapterName, AdapterRegistry, PublishOptions,
    PublishRule, Source, SwapPolicy, hub,
};
use serde::Deserialize;
use std::path::Path;

/// One value of the flag: one adapter, or a JSON list of them.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LoraModules(pub Vec<LoraModule>);

/// An adapter, and where it comes from.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct LoraModule {
    /// What requests call it.
    pub name: String,
    /// A directory, a GGUF file, or a repository of the hub.
    pub path: String,
    /// vLLM shows it as the adapter's parent; here that is the base that is served.
    #[serde(default)]
    base_model_name: Option<String>,
    /// A layout of experts' factors, which no base here has.
    #[serde(default)]
    is_3d_lora_weight: bool,
}

/// Why an adapter of the settings cannot be served.
#[derive(Debug, thiserror::Error)]
#[error("--lora-modules: `{name}` from `{path}`")]
pub struct LoraModuleError {
    name: String,
    path: String,
    #[source]
    cause: AdapterError,
}

impl LoraModules {
    /// `name=path`, a JSON object, or a JSON list of objects.
    ///
    /// # Errors
    /// For what is none of them.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let modules: Vec<LoraModule> = match text.as_bytes().first() {
            Some(b'[') => serde_json::from_str(text).map_err(|error| error.to_string())?,
            Some(b'{') => vec![serde_json::from_str(text).map_err(|error| error.to_string())?],
            _ => match text.split_once('=') {
                Some((name, path)) => vec![LoraModule::new(name, path)],
                None => return Err("write name=path, or JSON with `name` and `path`".into()),
            },
        };
        for module in &modules {
            module.check()?;
        }
        Ok(Self(modules))
    }
}

impl LoraModule {
    /// The adapter at `path`, to be called `name`.
    pub fn new(name: &str, path: &str) -> Self {
        let (name, path) = (name.trim().to_owned(), path.trim().to_owned());
        Self { name, path, base_model_name: None, is_3d_lora_weight: false }
    }

    fn check(&self) -> Result<(), String> {
        if self.path.is_empty() {
            return Err(format!("`{}` has no path", self.name));
        }
        if self.is_3d_lora_weight {
            return Err(format!("`{}`: is_3d_lora_weight is not served", self.name));
        }
        self.name.parse::<AdapterName>().map(drop).map_err(|error| error.to_string())
    }

    /// Publishes it in place of what the name meant: whoever starts the server decides. Blocks.
    ///
    /// # Errors
    /// When there is no adapter that fits, or its name is taken by the base or an alias.
    pub fn publish(&self, registry: &AdapterRegistry) -> Result<(), LoraModuleError> {
        self.try_publish(registry).map_err(|cause| {
            let (name, path) = (self.name.clone(), self.path.clone());
            LoraModuleError { name, path, cause }
        })
    }

    fn try_publish(&self, registry: &AdapterRegistry) -> Result<(), AdapterError> {
        let name: AdapterName = self.name.parse()?;
        let (files, source) = self.files(registry.limits())?;
        let options = PublishOptions {
            rule: PublishRule::Replace,
            policy: SwapPolicy::Pin,
            by: "start".into(),
            source,
        };
        let published = registry.publish_blocking(&name, &files, options)?;
        tracing::info!(adapter = %name, version = %published.version, "adapter of --lora-modules");
        Ok(())
    }

    /// What exists on the disk comes from there; anything else is the hub's.
    fn files(&self, limits: &AdapterLimits) -> Result<(AdapterFiles, Source), AdapterError> {
        let path = Path::new(&self.path);
        match hub::reference(&self.path) {
            Some(reference) if !path.exists() => {
                let found = hub::fetch(&reference, limits)?;
                Ok((found.files, Source::Hub { reference, commit: found.commit }))
            }
            _ => Ok((AdapterFiles::read(path, limits)?, Source::Upload)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_is_a_pair_an_object_or_a_list() {
        let one = |name, path| LoraModules(vec![LoraModule::new(name, path)]);
        assert_eq!(LoraModules::parse("sql=/mnt/lora/sql"), Ok(one("sql", "/mnt/lora/sql")));
        assert_eq!(LoraModules::parse("a=b=c"), Ok(one("a", "b=c")));
        let object = r#"{"name": "sql", "path": "org/sql"}"#;
        assert_eq!(LoraModules::parse(object), Ok(one("sql", "org/sql")));
        let base = r#"{"name": "sql", "path": "p", "base_model_name": "b"}"#;
        assert!(LoraModules::parse(base).is_ok());
        let list = LoraModules::parse(&format!("[{object}, {base}]")).expect("a list");
        assert_eq!(list.0.len(), 2);
    }

    #[test]
    fn what_is_no_module_says_why() {
        for (text, why) in [
            ("sql", "name=path"),
            ("sql=", "has no path"),
            ("a b=/p", "name"),
            ("{}", "name"),
            (r#"{"name": "a", "path": "p", "rank": 8}"#, "rank"),
            (r#"{"name": "a", "path": "p", "is_3d_lora_weight": true}"#, "is_3d_lora_weight"),
            ("[1]", "invalid type"),
        ] {
            let error = LoraModules::parse(text).expect_err(text);
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}

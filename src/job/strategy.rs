//! Which algorithm a job uses.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Settings;
use crate::strategy::{Catalogue, CatalogueError, FederatedStrategy};

/// The `kind` of a strategy that an embedder registered whole.
const CUSTOM: &str = "custom";

/// The algorithm of a job: a preset of the [`Catalogue`] with what differs from it, or a strategy of an embedder's own.
///
/// In TOML: `strategy = { kind = "fedadam", tau = 1e-4, sampler = "by_size", fraction = 0.1 }`. The keys beside `kind` are
/// `sampler`, `work`, `filter`, `weighting`, `objective`, `reducer` and `optimizer`, which name other parts, and the parameters of the parts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Settings", into = "Settings")]
#[non_exhaustive]
pub enum StrategySpec {
    /// A composition of parts.
    Composed {
        /// The name of a preset: `fedavg`, `fedadam`, `scaffold`.
        preset: String,
        /// What differs from it: names of parts, and parameters. At most 64 KiB as JSON.
        settings: Settings,
    },
    /// A strategy that an embedder registered with the coordinator under this name.
    Custom {
        /// The name.
        name: String,
        /// Settings that the strategy reads; at most 64 KiB as JSON. Left out if there are none.
        settings: Settings,
    },
}

impl Default for StrategySpec {
    fn default() -> Self {
        Self::preset("fedavg")
    }
}

impl StrategySpec {
    /// A preset, such as `fedavg`, as it is.
    pub fn preset(name: impl Into<String>) -> Self {
        Self::Composed {
            preset: name.into(),
            settings: Settings::new(),
        }
    }

    /// The same with this part or parameter. A strategy that an embedder registered gets it as a setting.
    pub fn with(mut self, key: impl Into<String>, value: impl Into<Value>) -> Self {
        self.settings_mut().insert(key.into(), value.into());
        self
    }

    /// A strategy that an embedder registered under this name, with these settings.
    pub fn custom(name: impl Into<String>, settings: Settings) -> Self {
        let name = name.into();
        Self::Custom { name, settings }
    }

    /// Its name: the preset's, or that of an embedder's strategy.
    pub fn name(&self) -> &str {
        match self {
            Self::Composed { preset, .. } => preset,
            Self::Custom { name, .. } => name,
        }
    }

    /// What it is set to.
    pub fn settings(&self) -> &Settings {
        match self {
            Self::Composed { settings, .. } | Self::Custom { settings, .. } => settings,
        }
    }

    /// The same, to change.
    pub fn settings_mut(&mut self) -> &mut Settings {
        match self {
            Self::Composed { settings, .. } | Self::Custom { settings, .. } => settings,
        }
    }

    /// The strategy, if it is a composition; `None` for an embedder's own.
    ///
    /// # Errors
    ///
    /// [`CatalogueError`] names the key and what is wrong with it.
    pub fn build(
        &self,
        catalogue: &Catalogue,
    ) -> Result<Option<Arc<dyn FederatedStrategy>>, CatalogueError> {
        let Self::Composed { preset, settings } = self else {
            return Ok(None);
        };
        Ok(Some(Arc::new(catalogue.make(preset, settings)?)))
    }

    /// The same with every part and every parameter by name, so that it means the same when the defaults have changed.
    ///
    /// # Errors
    ///
    /// [`CatalogueError`] names the key and what is wrong with it.
    pub fn complete(&mut self, catalogue: &Catalogue) -> Result<(), CatalogueError> {
        if let Self::Composed { preset, settings } = self {
            *settings = catalogue.complete(preset, settings)?;
        }
        Ok(())
    }
}

/// The name, and each setting with its value.
impl fmt::Display for StrategySpec {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())?;
        for (key, value) in self.settings() {
            match value {
                // Without quotes.
                Value::String(text) => write!(formatter, " {key} {text}")?,
                other => write!(formatter, " {key} {other}")?,
            }
        }
        Ok(())
    }
}

impl TryFrom<Settings> for StrategySpec {
    type Error = String;

    fn try_from(mut table: Settings) -> Result<Self, String> {
        let kind = take_name(&mut table, "kind")?;
        if kind != CUSTOM {
            return Ok(Self::Composed {
                preset: kind,
                settings: table,
            });
        }
        let name = take_name(&mut table, "name")?;
        let settings = match table.remove("settings") {
            None => Settings::new(),
            Some(Value::Object(settings)) => settings,
            Some(other) => return Err(format!("strategy.settings must be a table, not {other}")),
        };
        match table.keys().next() {
            None => Ok(Self::Custom { name, settings }),
            Some(key) => Err(format!(
                "strategy.{key}: a strategy of kind \"custom\" has name and settings alone"
            )),
        }
    }
}

fn take_name(table: &mut Settings, key: &str) -> Result<String, String> {
    match table.remove(key) {
        Some(Value::String(name)) => Ok(name),
        Some(other) => Err(format!("strategy.{key} must be a name, not {other}")),
        None => Err(format!("the strategy has no {key}")),
    }
}

impl From<StrategySpec> for Settings {
    fn from(spec: StrategySpec) -> Self {
        let (kind, mut table) = match spec {
            StrategySpec::Composed { preset, settings } => (preset, settings),
            StrategySpec::Custom { name, settings } => {
                let mut table = Settings::new();
                table.insert("name".to_string(), name.into());
                if !settings.is_empty() {
                    table.insert("settings".to_string(), settings.into());
                }
                (CUSTOM.to_string(), table)
            }
        };
        table.insert("kind".to_string(), kind.into());
        table
    }
}

/// The form of a [`StrategySpec`] in the OpenAPI document.
#[cfg(feature = "http")]
#[derive(utoipa::ToSchema)]
#[schema(as = StrategySpec)]
#[expect(dead_code, reason = "it is a schema alone")]
pub(crate) struct StrategySpelling {
    /// The name of a preset, which `fedavg strategies` lists, or `custom`.
    kind: String,
    /// Of a preset: the part that chooses the clients of a round.
    sampler: Option<String>,
    /// Of a preset: the part that says how much each client trains.
    work: Option<String>,
    /// Of a preset: the part that says which reports are left out.
    filter: Option<String>,
    /// Of a preset: the part that says how much each report counts.
    weighting: Option<String>,
    /// Of a preset: the part that says what clients minimize.
    objective: Option<String>,
    /// Of a preset: the part that makes one update of the reports.
    reducer: Option<String>,
    /// Of a preset: the part that moves the global model.
    optimizer: Option<String>,
    /// Of `custom`: the name that an embedder registered the strategy under.
    name: Option<String>,
    /// Of `custom`: settings that the strategy reads; at most 64 KiB as JSON.
    #[schema(value_type = Option<Object>)]
    settings: Option<Settings>,
    /// Of a preset: the parameters of its parts, each under its own key.
    #[serde(flatten)]
    #[schema(value_type = std::collections::HashMap<String, Value>)]
    parameters: std::collections::HashMap<String, Value>,
}

//! The parts of strategies by name, and presets of them: what a job's `[strategy]` table is read by.

mod builtin;
mod error;
mod kind;
mod parameter;
mod part;
mod presets;
#[cfg(test)]
mod tests;

use std::{fmt, sync::Arc};

pub use error::CatalogueError;
pub use kind::PartKind;
pub use parameter::{Parameter, ParameterKind, Values};
pub use part::PartInfo;
use part::Parts;
pub use presets::Preset;
use serde_json::{Map, Value};

use super::{
    ClientObjective, Composition, LocalWork, Reducer, ReportFilter, Sampler, ServerOptimizer,
    StrategyError, Weighting,
};

/// The parts and presets that jobs can name. The default has those of this crate; an embedder adds parts of their own.
///
/// A job names a preset and what differs from it: `{ kind = "fedadam", tau = 1e-4, sampler = "by_size" }`. Each part has
/// parameters with defaults; those of all parts are in one table.
///
/// ```
/// use fedavg::strategy::{Catalogue, FederatedStrategy, Parameter, PartInfo, weighting::{Capped, Weighting}};
/// use serde_json::json;
///
/// let info = PartInfo::new("at_most", "examples, and at most `most`").parameter(Parameter::above("most", 0.0, 100.0));
/// let catalogue = Catalogue::default().with_weighting(info, |values| Ok(Capped::new(values.number("most"))));
/// let asked = json!({ "weighting": "at_most", "most": 10 });
/// let strategy = catalogue.make("fedadam", asked.as_object().unwrap()).unwrap();
/// assert_eq!(strategy.state().tensors.len(), 2);
/// ```
#[derive(Clone)]
pub struct Catalogue {
    samplers: Parts<dyn Sampler>,
    works: Parts<dyn LocalWork>,
    filters: Parts<dyn ReportFilter>,
    weightings: Parts<dyn Weighting>,
    objectives: Parts<dyn ClientObjective>,
    reducers: Parts<dyn Reducer>,
    optimizers: Parts<dyn ServerOptimizer>,
    presets: Vec<Preset>,
}

impl fmt::Debug for Catalogue {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let presets = self.presets.iter().map(|preset| preset.name);
        formatter.debug_list().entries(presets).finish()
    }
}

impl Catalogue {
    /// The presets, without any part.
    fn empty() -> Self {
        Self {
            samplers: Parts::new(PartKind::Sampler),
            works: Parts::new(PartKind::Work),
            filters: Parts::new(PartKind::Filter),
            weightings: Parts::new(PartKind::Weighting),
            objectives: Parts::new(PartKind::Objective),
            reducers: Parts::new(PartKind::Reducer),
            optimizers: Parts::new(PartKind::Optimizer),
            presets: presets::all(),
        }
    }
}

type Made<T> = Result<T, StrategyError>;

impl Catalogue {
    /// Adds a sampler. A part of the same name is replaced.
    pub fn with_sampler<S: Sampler + 'static>(
        mut self,
        info: PartInfo,
        make: impl Fn(&Values) -> Made<S> + Send + Sync + 'static,
    ) -> Self {
        self.samplers
            .add(info, move |values| Ok(Arc::new(make(values)?)));
        self
    }

    /// Adds a rule of how much clients train. A part of the same name is replaced.
    pub fn with_work<W: LocalWork + 'static>(
        mut self,
        info: PartInfo,
        make: impl Fn(&Values) -> Made<W> + Send + Sync + 'static,
    ) -> Self {
        self.works
            .add(info, move |values| Ok(Arc::new(make(values)?)));
        self
    }

    /// Adds a filter of reports. A part of the same name is replaced.
    pub fn with_filter<F: ReportFilter + 'static>(
        mut self,
        info: PartInfo,
        make: impl Fn(&Values) -> Made<F> + Send + Sync + 'static,
    ) -> Self {
        self.filters
            .add(info, move |values| Ok(Arc::new(make(values)?)));
        self
    }

    /// Adds a weighting. A part of the same name is replaced.
    pub fn with_weighting<W: Weighting + 'static>(
        mut self,
        info: PartInfo,
        make: impl Fn(&Values) -> Made<W> + Send + Sync + 'static,
    ) -> Self {
        self.weightings
            .add(info, move |values| Ok(Arc::new(make(values)?)));
        self
    }

    /// Adds a client objective. A part of the same name is replaced.
    pub fn with_objective<O: ClientObjective + 'static>(
        mut self,
        info: PartInfo,
        make: impl Fn(&Values) -> Made<O> + Send + Sync + 'static,
    ) -> Self {
        self.objectives
            .add(info, move |values| Ok(Arc::new(make(values)?)));
        self
    }

    /// Adds a reducer. A part of the same name is replaced.
    pub fn with_reducer<R: Reducer + 'static>(
        mut self,
        info: PartInfo,
        make: impl Fn(&Values) -> Made<R> + Send + Sync + 'static,
    ) -> Self {
        self.reducers
            .add(info, move |values| Ok(Arc::new(make(values)?)));
        self
    }

    /// Adds a server optimizer. A part of the same name is replaced.
    pub fn with_optimizer<O: ServerOptimizer + 'static>(
        mut self,
        info: PartInfo,
        make: impl Fn(&Values) -> Made<O> + Send + Sync + 'static,
    ) -> Self {
        self.optimizers
            .add(info, move |values| Ok(Arc::new(make(values)?)));
        self
    }

    /// The presets, in the order of their documentation.
    pub fn presets(&self) -> &[Preset] {
        &self.presets
    }

    /// The parts of a kind, by name.
    pub fn parts(&self, kind: PartKind) -> Vec<&PartInfo> {
        match kind {
            PartKind::Sampler => self.samplers.infos(),
            PartKind::Work => self.works.infos(),
            PartKind::Filter => self.filters.infos(),
            PartKind::Weighting => self.weightings.infos(),
            PartKind::Objective => self.objectives.infos(),
            PartKind::Reducer => self.reducers.infos(),
            PartKind::Optimizer => self.optimizers.infos(),
        }
    }

    /// Makes the strategy of a preset and of what differs from it.
    ///
    /// # Errors
    ///
    /// [`CatalogueError`] names the key and what is wrong with it.
    pub fn make(
        &self,
        preset: &str,
        asked: &Map<String, Value>,
    ) -> Result<Composition, CatalogueError> {
        let values = self.values(preset, asked)?;
        let made = Composition {
            sampler: self.samplers.make(&values)?,
            work: self.works.make(&values)?,
            filter: self.filters.make(&values)?,
            weighting: self.weightings.make(&values)?,
            objective: self.objectives.make(&values)?,
            reducer: self.reducers.make(&values)?,
            optimizer: self.optimizers.make(&values)?,
        };
        if !made.reducer.is_mean()
            && let Some(reason) = made.objective.needs_mean()
        {
            let problem = format!(
                "{} does not go with objective {}: {reason}. Leave the reducer out, or choose objective plain or proximal",
                values.text(PartKind::Reducer.key()),
                values.text(PartKind::Objective.key())
            );
            return Err(CatalogueError::new(PartKind::Reducer.key(), problem));
        }
        Ok(made)
    }

    /// The names of all parts and the values of all parameters of a preset and of what differs from it. With them, a record says
    /// what was done even if the defaults change later.
    ///
    /// # Errors
    ///
    /// [`CatalogueError`] names the key and what is wrong with it.
    pub fn complete(
        &self,
        preset: &str,
        asked: &Map<String, Value>,
    ) -> Result<Map<String, Value>, CatalogueError> {
        Ok(self.values(preset, asked)?.into_inner())
    }

    /// The parameters that a preset has with the parts that are asked for, in the order of the parts, each with its default.
    ///
    /// # Errors
    ///
    /// [`CatalogueError`] if the preset or a part is not known.
    pub fn parameters(
        &self,
        preset: &str,
        asked: &Map<String, Value>,
    ) -> Result<Vec<Parameter>, CatalogueError> {
        let preset = self.preset(preset)?;
        let asked = &flattened(asked)?;
        let mut found: Vec<Parameter> = Vec::new();
        for kind in PartKind::ALL {
            let part = self.part(kind, preset, asked)?;
            // The preset's defaults are for its own parts: another optimizer has another scale of rates.
            let is_own = part.name == preset.part(kind);
            for parameter in &part.parameters {
                // Two parts that share a parameter, such as a rate, get the same value.
                if !found.iter().any(|known| known.name == parameter.name) {
                    let mut parameter = parameter.clone();
                    let default = preset.default_of(&parameter.name);
                    if let Some(default) = default.filter(|_| is_own) {
                        parameter.default = Some(default.into());
                    }
                    found.push(parameter);
                }
            }
        }
        Ok(found)
    }

    fn preset(&self, name: &str) -> Result<&Preset, CatalogueError> {
        let found = self.presets.iter().find(|preset| preset.name == name);
        found.ok_or_else(|| {
            let known: Vec<_> = self.presets.iter().map(|preset| preset.name).collect();
            CatalogueError::unknown("kind", name, &known)
        })
    }

    /// The part of a kind: the one that is asked for, else the preset's.
    fn part(
        &self,
        kind: PartKind,
        preset: &Preset,
        asked: &Map<String, Value>,
    ) -> Result<&PartInfo, CatalogueError> {
        match kind {
            PartKind::Sampler => self.samplers.find(preset, asked),
            PartKind::Work => self.works.find(preset, asked),
            PartKind::Filter => self.filters.find(preset, asked),
            PartKind::Weighting => self.weightings.find(preset, asked),
            PartKind::Objective => self.objectives.find(preset, asked),
            PartKind::Reducer => self.reducers.find(preset, asked),
            PartKind::Optimizer => self.optimizers.find(preset, asked),
        }
    }

    /// The parts that have a parameter of this name, such as `reducer krum`.
    fn parts_with(&self, parameter: &str) -> Vec<String> {
        let mut found = Vec::new();
        for kind in PartKind::ALL {
            for part in self.parts(kind) {
                if part.parameters.iter().any(|known| known.name == parameter) {
                    found.push(format!("{} {}", kind.key(), part.name));
                }
            }
        }
        found
    }

    /// The names of all parts, and the values of all parameters.
    fn values(&self, name: &str, asked: &Map<String, Value>) -> Result<Values, CatalogueError> {
        let preset = self.preset(name)?;
        let asked = &flattened(asked)?;
        let parameters = self.parameters(name, asked)?;
        for key in asked.keys() {
            let is_known = PartKind::of_key(key).is_some()
                || parameters.iter().any(|parameter| parameter.name == *key);
            if !is_known {
                let known: Vec<_> = parameters.iter().map(|known| known.name.as_str()).collect();
                let others = self.parts_with(key);
                return Err(CatalogueError::no_parameter(name, key, &known, &others));
            }
        }
        let mut values = Values::of(&parameters, asked)?;
        for kind in PartKind::ALL {
            values.set(kind.key(), self.part(kind, preset, asked)?.name.clone());
        }
        Ok(values)
    }
}

/// The same with all parameters in one table: a part may also have a table of its own, as in `reducer = { kind = "krum", f = 3 }`.
fn flattened(asked: &Map<String, Value>) -> Result<Map<String, Value>, CatalogueError> {
    let mut flat = Map::new();
    let mut own = Vec::new();
    for (key, value) in asked {
        match value {
            Value::Object(table) if PartKind::of_key(key).is_some() => own.push((key, table)),
            _ => {
                flat.insert(key.clone(), value.clone());
            }
        }
    }
    for (part, table) in own {
        let Some(kind) = table.get("kind") else {
            let problem = "is a table without `kind`, which names the part".to_string();
            return Err(CatalogueError::new(part, problem));
        };
        flat.insert(part.clone(), kind.clone());
        for (key, value) in table.iter().filter(|(key, _)| *key != "kind") {
            let before = flat.insert(key.clone(), value.clone());
            if before.is_some_and(|before| before != *value) {
                let problem = format!(
                    "has one value in the table of {part} and another one beside it: give it once"
                );
                return Err(CatalogueError::new(key, problem));
            }
        }
    }
    Ok(flat)
}

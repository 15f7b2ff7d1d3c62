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
use part::{Part, Parts};
pub use presets::Preset;
use serde_json::{Map, Value};

use super::{
    ClientObjective, Composition, LocalWork, Reducer, Sampler, ServerOptimizer, StrategyError,
    Weighting,
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
            samplers: Parts::default(),
            works: Parts::default(),
            weightings: Parts::default(),
            objectives: Parts::default(),
            reducers: Parts::default(),
            optimizers: Parts::default(),
            presets: presets::all(),
        }
    }
}

/// What a job asks for, with defaults for everything that it leaves out.
struct Resolved<'a> {
    sampler: &'a Part<dyn Sampler>,
    work: &'a Part<dyn LocalWork>,
    weighting: &'a Part<dyn Weighting>,
    objective: &'a Part<dyn ClientObjective>,
    reducer: &'a Part<dyn Reducer>,
    optimizer: &'a Part<dyn ServerOptimizer>,
    /// The names of the parts, and their parameters.
    values: Values,
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
        let resolved = self.resolve(preset, asked)?;
        let values = &resolved.values;
        let made = Composition {
            sampler: resolved.sampler.make(PartKind::Sampler, values)?,
            work: resolved.work.make(PartKind::Work, values)?,
            weighting: resolved.weighting.make(PartKind::Weighting, values)?,
            objective: resolved.objective.make(PartKind::Objective, values)?,
            reducer: resolved.reducer.make(PartKind::Reducer, values)?,
            optimizer: resolved.optimizer.make(PartKind::Optimizer, values)?,
        };
        if !made.reducer.is_mean()
            && let Some(reason) = made.objective.needs_mean()
        {
            let problem = format!(
                "{:?} does not go with objective {:?}: {reason}. Leave the reducer out, or take objective plain or proximal",
                resolved.reducer.info.name, resolved.objective.info.name
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
        Ok(self.resolve(preset, asked)?.values.into_inner())
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
        Ok(match kind {
            PartKind::Sampler => &self.samplers.find(kind, preset.part(kind), asked)?.info,
            PartKind::Work => &self.works.find(kind, preset.part(kind), asked)?.info,
            PartKind::Weighting => &self.weightings.find(kind, preset.part(kind), asked)?.info,
            PartKind::Objective => &self.objectives.find(kind, preset.part(kind), asked)?.info,
            PartKind::Reducer => &self.reducers.find(kind, preset.part(kind), asked)?.info,
            PartKind::Optimizer => &self.optimizers.find(kind, preset.part(kind), asked)?.info,
        })
    }

    fn resolve(
        &self,
        name: &str,
        asked: &Map<String, Value>,
    ) -> Result<Resolved<'_>, CatalogueError> {
        let preset = self.preset(name)?;
        let asked = &flattened(asked)?;
        let parameters = self.parameters(name, asked)?;
        let mut values = Map::new();
        for kind in PartKind::ALL {
            let part = self.part(kind, preset, asked)?;
            values.insert(kind.key().to_string(), part.name.clone().into());
        }
        for key in asked.keys() {
            let is_known = PartKind::of_key(key).is_some()
                || parameters.iter().any(|parameter| parameter.name == *key);
            if !is_known {
                let known: Vec<_> = parameters.iter().map(|known| known.name.as_str()).collect();
                return Err(CatalogueError::no_parameter(name, key, &known));
            }
        }
        for parameter in &parameters {
            if let Some(value) = parameter.value_of(asked)? {
                values.insert(parameter.name.clone(), value);
            }
        }
        Ok(Resolved {
            sampler: self.samplers.find(
                PartKind::Sampler,
                preset.part(PartKind::Sampler),
                asked,
            )?,
            work: self
                .works
                .find(PartKind::Work, preset.part(PartKind::Work), asked)?,
            weighting: self.weightings.find(
                PartKind::Weighting,
                preset.part(PartKind::Weighting),
                asked,
            )?,
            objective: self.objectives.find(
                PartKind::Objective,
                preset.part(PartKind::Objective),
                asked,
            )?,
            reducer: self.reducers.find(
                PartKind::Reducer,
                preset.part(PartKind::Reducer),
                asked,
            )?,
            optimizer: self.optimizers.find(
                PartKind::Optimizer,
                preset.part(PartKind::Optimizer),
                asked,
            )?,
            values: Values::new(values),
        })
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
            let problem = "a table needs `kind`, the name of the part".to_string();
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

//! One part of a strategy: what it is, and how it is made.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::{Map, Value};

use super::{CatalogueError, Parameter, PartKind, Preset, Values};
use crate::{panics, strategy::StrategyError};

/// What is said of a part of a strategy, or of an attack.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct PartInfo {
    /// Its name in jobs.
    pub name: String,
    /// What it does, in one sentence without a full stop.
    pub about: String,
    /// Where it was published; empty if it was not.
    pub paper: String,
    /// Its parameters.
    pub parameters: Vec<Parameter>,
}

impl PartInfo {
    /// A part without parameters.
    pub fn new(name: impl Into<String>, about: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            about: about.into(),
            paper: String::new(),
            parameters: Vec::new(),
        }
    }

    /// The same, published there.
    pub fn paper(mut self, paper: impl Into<String>) -> Self {
        self.paper = paper.into();
        self
    }

    /// The same with one more parameter.
    pub fn parameter(mut self, parameter: Parameter) -> Self {
        self.parameters.push(parameter);
        self
    }
}

type Make<T> = dyn Fn(&Values) -> Result<Arc<T>, StrategyError> + Send + Sync;

/// A part that can be made.
struct Part<T: ?Sized> {
    info: PartInfo,
    make: Arc<Make<T>>,
}

/// The parts of one kind, by name.
pub(super) struct Parts<T: ?Sized> {
    kind: PartKind,
    by_name: BTreeMap<String, Part<T>>,
}

// Not derived: derived ones would ask the same of `T`.
impl<T: ?Sized> Clone for Part<T> {
    fn clone(&self) -> Self {
        Self {
            info: self.info.clone(),
            make: self.make.clone(),
        }
    }
}

impl<T: ?Sized> Clone for Parts<T> {
    fn clone(&self) -> Self {
        Self {
            kind: self.kind,
            by_name: self.by_name.clone(),
        }
    }
}

impl<T: ?Sized> Parts<T> {
    /// None of this kind.
    pub fn new(kind: PartKind) -> Self {
        Self {
            kind,
            by_name: BTreeMap::new(),
        }
    }

    pub fn add(
        &mut self,
        info: PartInfo,
        make: impl Fn(&Values) -> Result<Arc<T>, StrategyError> + Send + Sync + 'static,
    ) {
        let (name, make) = (info.name.clone(), Arc::new(make));
        self.by_name.insert(name, Part { info, make });
    }

    pub fn infos(&self) -> Vec<&PartInfo> {
        self.by_name.values().map(|part| &part.info).collect()
    }

    /// The part that is asked for, else the preset's.
    pub fn find(
        &self,
        preset: &Preset,
        asked: &Map<String, Value>,
    ) -> Result<&PartInfo, CatalogueError> {
        let key = self.kind.key();
        let name = match asked.get(key) {
            None => preset.part(self.kind),
            Some(Value::String(name)) => name,
            Some(other) => return Err(CatalogueError::not_a(key, "the name of a part", other)),
        };
        Ok(&self.named(name)?.info)
    }

    /// Makes the part that complete values name.
    pub fn make(&self, values: &Values) -> Result<Arc<T>, CatalogueError> {
        let key = self.kind.key();
        let named = values.any(key).and_then(Value::as_str);
        let part = self.named(named.unwrap_or_default())?;
        // An embedder's code: a panic in it refuses the job, as an error does.
        let made = panics::caught(|| (part.make)(values));
        let made = made.unwrap_or_else(|panic| Err(StrategyError::Panicked(panic)));
        made.map_err(|error| {
            let problem = format!("{:?} can't be made: {error}", part.info.name);
            CatalogueError::new(key, problem)
        })
    }

    fn named(&self, name: &str) -> Result<&Part<T>, CatalogueError> {
        self.by_name.get(name).ok_or_else(|| {
            let known: Vec<_> = self.by_name.keys().map(String::as_str).collect();
            CatalogueError::unknown(self.kind.key(), name, &known)
        })
    }
}

//! One part of a strategy: what it is, and how it is made.

use std::{collections::BTreeMap, fmt, sync::Arc};

use serde_json::{Map, Value};

use super::{CatalogueError, Parameter, PartKind, Values};
use crate::{panics, strategy::StrategyError};

/// What is said of a part.
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
pub(super) struct Part<T: ?Sized> {
    pub info: PartInfo,
    make: Arc<Make<T>>,
}

impl<T: ?Sized> Clone for Part<T> {
    fn clone(&self) -> Self {
        Self {
            info: self.info.clone(),
            make: self.make.clone(),
        }
    }
}

impl<T: ?Sized> fmt::Debug for Part<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.info.fmt(formatter)
    }
}

impl<T: ?Sized> Part<T> {
    pub fn make(&self, kind: PartKind, values: &Values) -> Result<Arc<T>, CatalogueError> {
        // An embedder's code: a panic in it refuses the job, as an error does.
        let made = panics::caught(|| (self.make)(values));
        let made = made.unwrap_or_else(|panic| Err(StrategyError::Panicked(panic)));
        made.map_err(|error| {
            let problem = format!("{:?} can't be made: {error}", self.info.name);
            CatalogueError::new(kind.key(), problem)
        })
    }
}

/// The parts of one kind, by name.
pub(super) struct Parts<T: ?Sized>(BTreeMap<String, Part<T>>);

// Not derived: a derived one would ask the same of `T`.
impl<T: ?Sized> Default for Parts<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T: ?Sized> Clone for Parts<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: ?Sized> Parts<T> {
    pub fn add(
        &mut self,
        info: PartInfo,
        make: impl Fn(&Values) -> Result<Arc<T>, StrategyError> + Send + Sync + 'static,
    ) {
        let (name, make) = (info.name.clone(), Arc::new(make));
        self.0.insert(name, Part { info, make });
    }

    pub fn infos(&self) -> Vec<&PartInfo> {
        self.0.values().map(|part| &part.info).collect()
    }

    /// The part that is asked for, else the usual one.
    pub fn find(
        &self,
        kind: PartKind,
        usual: &str,
        asked: &Map<String, Value>,
    ) -> Result<&Part<T>, CatalogueError> {
        let name = match asked.get(kind.key()) {
            None => usual,
            Some(Value::String(name)) => name,
            Some(other) => {
                return Err(CatalogueError::not_a(
                    kind.key(),
                    "the name of a part",
                    other,
                ));
            }
        };
        self.0.get(name).ok_or_else(|| {
            let known: Vec<_> = self.0.keys().map(String::as_str).collect();
            CatalogueError::unknown(kind.key(), name, &known)
        })
    }
}

//! `fedavg strategies`.

use clap::Args;
use serde::Serialize;
use serde_json::Value;

use super::{Align, Failure, Screen, Table};
use crate::{
    job::Settings,
    strategy::{Catalogue, CatalogueError, Parameter, PartInfo, PartKind, Preset},
};

/// List the strategies that a job can name, with their parts, parameters, defaults and papers.
#[derive(Debug, Clone, Args)]
pub struct StrategiesArgs {
    /// One strategy, such as fedadam, in full [default: all, a line each]
    #[arg(value_name = "NAME")]
    pub name: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// A strategy, as `--json` prints it.
#[derive(Serialize)]
struct StrategyForm<'a> {
    name: &'a str,
    about: &'a str,
    paper: &'a str,
    sampler: &'a str,
    work: &'a str,
    weighting: &'a str,
    objective: &'a str,
    optimizer: &'a str,
    parameters: Vec<ParameterForm>,
}

/// A part, as `--json` prints it.
#[derive(Serialize)]
struct PartForm<'a> {
    kind: &'a str,
    name: &'a str,
    about: &'a str,
    paper: &'a str,
    parameters: Vec<ParameterForm>,
}

#[derive(Serialize)]
struct ParameterForm {
    name: String,
    about: String,
    range: String,
    default: Option<Value>,
}

#[derive(Serialize)]
struct Listing<'a> {
    strategies: Vec<StrategyForm<'a>>,
    parts: Vec<PartForm<'a>>,
}

impl StrategiesArgs {
    /// Prints them.
    ///
    /// # Errors
    ///
    /// [`Failure::Usage`] if there is no strategy of this name.
    pub fn run(&self, screen: &Screen) -> Result<(), Failure> {
        let catalogue = Catalogue::default();
        match &self.name {
            Some(name) => self.print_one(screen, &catalogue, name),
            None => self.print_all(screen, &catalogue),
        }
    }

    fn print_one(&self, screen: &Screen, catalogue: &Catalogue, name: &str) -> Result<(), Failure> {
        let parameters = catalogue.parameters(name, &Settings::new());
        let parameters = parameters.map_err(|error| unknown(&error))?;
        let mut presets = catalogue.presets().iter();
        let Some(preset) = presets.find(|preset| preset.name == name) else {
            return Ok(());
        };
        if self.json {
            return screen.print_json(&form(preset, &parameters));
        }
        let mut text = format!("{}: {}\n{}\n\n", preset.name, preset.about, preset.paper);
        let mut parts = Table::new(&[("part", Align::Left), ("", Align::Left), ("", Align::Left)]);
        for kind in PartKind::ALL {
            let part = preset.part(kind);
            let infos = catalogue.parts(kind);
            let about = infos.iter().find(|info| info.name == part);
            let about = about.map(|info| info.about.clone()).unwrap_or_default();
            parts.row([kind.key().to_string(), part.to_string(), about]);
        }
        text.push_str(&parts.to_string());
        text.push('\n');
        text.push_str(&parameter_table(&parameters).to_string());
        text.push_str(&format!(
            "\nIn a job file: strategy = {{ kind = \"{name}\" }}; as flags: --strategy {name} --strategy-set KEY=VALUE\n"
        ));
        screen.print(&text)
    }

    fn print_all(&self, screen: &Screen, catalogue: &Catalogue) -> Result<(), Failure> {
        if self.json {
            let mut strategies = Vec::new();
            for preset in catalogue.presets() {
                let parameters = catalogue.parameters(preset.name, &Settings::new());
                let parameters = parameters.map_err(|error| unknown(&error))?;
                strategies.push(form(preset, &parameters));
            }
            let parts = parts(catalogue);
            return screen.print_json(&Listing { strategies, parts });
        }
        let mut table = Table::new(&[("strategy", Align::Left), ("", Align::Left)]);
        for preset in catalogue.presets() {
            table.row([preset.name.to_string(), preset.about.to_string()]);
        }
        let mut text = table.to_string();
        for kind in PartKind::ALL {
            let mut table = Table::new(&[
                (kind.key(), Align::Left),
                ("", Align::Left),
                ("", Align::Left),
            ]);
            for part in catalogue.parts(kind) {
                let mut parameters = Vec::new();
                for parameter in &part.parameters {
                    parameters.push(match &parameter.default {
                        Some(default) => format!("{}={default}", parameter.name),
                        None => parameter.name.clone(),
                    });
                }
                table.row([part.name.clone(), part.about.clone(), parameters.join(" ")]);
            }
            text.push('\n');
            text.push_str(&table.to_string());
        }
        text.push_str(
            "\nA strategy is five parts; --strategy-set takes another one for it, or sets a parameter: sampler=by_size.\n\
             \"fedavg strategies NAME\" shows one strategy with its parameters and its paper.\n",
        );
        screen.print(&text)
    }
}

fn unknown(error: &CatalogueError) -> Failure {
    Failure::Usage(format!("strategy {}", error.problem))
}

fn form<'a>(preset: &'a Preset, parameters: &[Parameter]) -> StrategyForm<'a> {
    StrategyForm {
        name: preset.name,
        about: preset.about,
        paper: preset.paper,
        sampler: preset.part(PartKind::Sampler),
        work: preset.part(PartKind::Work),
        weighting: preset.part(PartKind::Weighting),
        objective: preset.part(PartKind::Objective),
        optimizer: preset.part(PartKind::Optimizer),
        parameters: parameter_forms(parameters),
    }
}

fn parts(catalogue: &Catalogue) -> Vec<PartForm<'_>> {
    let mut forms = Vec::new();
    for kind in PartKind::ALL {
        for PartInfo {
            name,
            about,
            paper,
            parameters,
        } in catalogue.parts(kind)
        {
            forms.push(PartForm {
                kind: kind.key(),
                name,
                about,
                paper,
                parameters: parameter_forms(parameters),
            });
        }
    }
    forms
}

fn parameter_forms(parameters: &[Parameter]) -> Vec<ParameterForm> {
    let mut forms = Vec::new();
    for parameter in parameters {
        forms.push(ParameterForm {
            name: parameter.name.clone(),
            about: parameter.about.clone(),
            range: parameter.kind.range(),
            default: parameter.default.clone(),
        });
    }
    forms
}

fn parameter_table(parameters: &[Parameter]) -> Table {
    let mut table = Table::new(&[
        ("parameter", Align::Left),
        ("default", Align::Left),
        ("", Align::Left),
        ("", Align::Left),
    ]);
    for parameter in parameters {
        let default = parameter.default.as_ref();
        let default = default.map_or("none".to_string(), Value::to_string);
        let (range, about) = (parameter.kind.range(), parameter.about.clone());
        table.row([parameter.name.clone(), default, range, about]);
    }
    table
}

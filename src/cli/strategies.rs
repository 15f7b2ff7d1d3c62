//! `fedavg strategies`.

use clap::Args;
use serde::Serialize;

use super::{
    Align, Failure, Screen, Table,
    parameters::{self, ParameterForm},
};
use crate::{
    job::Settings,
    spelling,
    strategy::{Catalogue, CatalogueError, Parameter, PartInfo, PartKind, Preset},
};

/// List the strategies that a job can name, with their parts, parameters, defaults and papers.
#[derive(Debug, Clone, Args)]
pub struct StrategiesArgs {
    /// One strategy, such as fedadam, or one part, such as poisson, with its parameters [default: all, a line each]
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
    filter: &'a str,
    weighting: &'a str,
    objective: &'a str,
    reducer: &'a str,
    optimizer: &'a str,
    flags: &'a str,
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
        let mut presets = catalogue.presets().iter();
        let Some(preset) = presets.find(|preset| preset.name == name) else {
            return self.print_parts(screen, catalogue, name);
        };
        let parameters = catalogue.parameters(name, &Settings::new());
        let parameters = parameters.map_err(|error| unknown(&error))?;
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
        text.push_str(&parameters::table(&parameters).to_string());
        text.push_str(&format!(
            "\nIn a job file: strategy = {{ kind = \"{name}\" }}; as flags: --strategy {name} --strategy-set KEY=VALUE\n"
        ));
        if !preset.flags.is_empty() {
            text.push_str(&format!("It goes with: {}\n", preset.flags));
        }
        screen.print(&text)
    }

    /// Prints the parts of this name; a sampler and a weighting may share one.
    fn print_parts(
        &self,
        screen: &Screen,
        catalogue: &Catalogue,
        name: &str,
    ) -> Result<(), Failure> {
        let mut found = Vec::new();
        for kind in PartKind::ALL {
            for info in catalogue.parts(kind) {
                if info.name == name {
                    found.push((kind, info));
                }
            }
        }
        if found.is_empty() {
            let presets: Vec<_> = catalogue
                .presets()
                .iter()
                .map(|preset| preset.name)
                .collect();
            let mut known = presets.clone();
            for kind in PartKind::ALL {
                known.extend(catalogue.parts(kind).iter().map(|part| part.name.as_str()));
            }
            return Err(Failure::Usage(format!(
                "there is no strategy and no part {name:?}{}; strategies are {}, and \"fedavg strategies\" lists the parts",
                spelling::hint(name, known),
                presets.join(", ")
            )));
        }
        if self.json {
            let forms: Vec<_> = found
                .iter()
                .map(|(kind, info)| part_form(*kind, info))
                .collect();
            return screen.print_json(&forms);
        }
        let mut text = String::new();
        for (kind, info) in found {
            text.push_str(&format!("{} {}: {}\n", kind.key(), info.name, info.about));
            if !info.paper.is_empty() {
                text.push_str(&format!("{}\n", info.paper));
            }
            if !info.parameters.is_empty() {
                text.push_str(&format!("\n{}", parameters::table(&info.parameters)));
            }
            text.push_str(&format!(
                "\nAs a flag: --strategy-set {}={}\n",
                kind.key(),
                info.name
            ));
        }
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
                let parameters = parameters::line(&part.parameters);
                table.row([part.name.clone(), part.about.clone(), parameters]);
            }
            text.push('\n');
            text.push_str(&table.to_string());
        }
        text.push_str(
            "\nA strategy has seven parts. --strategy-set sampler=by_size chooses another part; --strategy-set tau=0.1 sets a\n\
             parameter. \"fedavg strategies NAME\" shows one strategy or part with its parameters and its paper.\n",
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
        filter: preset.part(PartKind::Filter),
        weighting: preset.part(PartKind::Weighting),
        objective: preset.part(PartKind::Objective),
        reducer: preset.part(PartKind::Reducer),
        optimizer: preset.part(PartKind::Optimizer),
        flags: preset.flags,
        parameters: parameters::forms(parameters),
    }
}

fn parts(catalogue: &Catalogue) -> Vec<PartForm<'_>> {
    let mut forms = Vec::new();
    for kind in PartKind::ALL {
        for info in catalogue.parts(kind) {
            forms.push(part_form(kind, info));
        }
    }
    forms
}

fn part_form(kind: PartKind, info: &PartInfo) -> PartForm<'_> {
    PartForm {
        kind: kind.key(),
        name: &info.name,
        about: &info.about,
        paper: &info.paper,
        parameters: parameters::forms(&info.parameters),
    }
}

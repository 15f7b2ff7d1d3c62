//! `fedavg attacks`.

use clap::Args;
use serde::Serialize;

use super::{Align, Failure, Screen, Table, values::setting};
use crate::attack::{AttackInfo, AttackParameter, Attacks};

/// List the attacks that clients of a simulation can make, with their parameters, defaults and papers.
#[derive(Debug, Clone, Args)]
pub struct AttacksArgs {
    /// One attack, such as alie, with its parameters [default: all, a line each]
    #[arg(value_name = "NAME")]
    pub name: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// An attack, as `--json` prints it.
#[derive(Serialize)]
struct AttackForm<'a> {
    name: &'a str,
    about: &'a str,
    paper: &'a str,
    parameters: Vec<ParameterForm<'a>>,
}

#[derive(Serialize)]
struct ParameterForm<'a> {
    name: &'a str,
    about: &'a str,
    range: String,
    default: Option<f64>,
}

impl AttacksArgs {
    /// Prints them.
    ///
    /// # Errors
    ///
    /// [`Failure::Usage`] if there is no attack of this name.
    pub fn run(&self, screen: &Screen) -> Result<(), Failure> {
        let attacks = Attacks::default();
        let infos = attacks.infos();
        let Some(name) = &self.name else {
            return self.print_all(screen, &infos);
        };
        match infos.iter().find(|info| info.name == *name) {
            Some(info) => self.print_one(screen, info),
            None => {
                let known: Vec<_> = infos.iter().map(|info| info.name.as_str()).collect();
                Err(Failure::Usage(format!(
                    "there is no attack {name:?}; attacks are {}",
                    known.join(", ")
                )))
            }
        }
    }

    fn print_one(&self, screen: &Screen, info: &AttackInfo) -> Result<(), Failure> {
        if self.json {
            return screen.print_json(&form(info));
        }
        let mut text = format!("{}: {}\n", info.name, info.about);
        if !info.paper.is_empty() {
            text.push_str(&format!("{}\n", info.paper));
        }
        if !info.parameters.is_empty() {
            text.push_str(&format!("\n{}", parameter_table(&info.parameters)));
        }
        text.push_str(&format!(
            "\nAs flags of simulate: --attack {}:FRACTION --attack-set KEY=VALUE\n",
            info.name
        ));
        screen.print(&text)
    }

    fn print_all(&self, screen: &Screen, infos: &[&AttackInfo]) -> Result<(), Failure> {
        if self.json {
            let forms: Vec<_> = infos.iter().map(|info| form(info)).collect();
            return screen.print_json(&forms);
        }
        let mut table = Table::new(&[
            ("attack", Align::Left),
            ("", Align::Left),
            ("", Align::Left),
        ]);
        for info in infos {
            let mut parameters = Vec::new();
            for parameter in &info.parameters {
                parameters.push(match parameter.default {
                    Some(default) => format!("{}={}", parameter.name, setting(default)),
                    None => parameter.name.clone(),
                });
            }
            table.row([info.name.clone(), info.about.clone(), parameters.join(" ")]);
        }
        screen.print(&format!(
            "{table}\n\"fedavg simulate --attack NAME:FRACTION\" has that fraction of the clients attack; --attack-set KEY=VALUE sets a\n\
             parameter. \"fedavg attacks NAME\" shows one attack with its parameters and its paper.\n"
        ))
    }
}

fn form(info: &AttackInfo) -> AttackForm<'_> {
    let mut parameters = Vec::new();
    for parameter in &info.parameters {
        parameters.push(ParameterForm {
            name: &parameter.name,
            about: &parameter.about,
            range: parameter.range_in_words(),
            default: parameter.default,
        });
    }
    AttackForm {
        name: &info.name,
        about: &info.about,
        paper: &info.paper,
        parameters,
    }
}

fn parameter_table(parameters: &[AttackParameter]) -> Table {
    let mut table = Table::new(&[
        ("parameter", Align::Left),
        ("default", Align::Left),
        ("", Align::Left),
        ("", Align::Left),
    ]);
    for parameter in parameters {
        let default = parameter.default.map_or("none".to_string(), setting);
        let (range, about) = (parameter.range_in_words(), parameter.about.clone());
        table.row([parameter.name.clone(), default, range, about]);
    }
    table
}

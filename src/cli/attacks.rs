//! `fedavg attacks`.

use clap::Args;
use serde::Serialize;

use super::{
    Align, Failure, Screen, Table,
    parameters::{self, ParameterForm},
};
use crate::{attack::Attacks, spelling, strategy::PartInfo};

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
    parameters: Vec<ParameterForm>,
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
                    "there is no attack {name:?}{}; attacks are {}",
                    spelling::hint(name, known.iter().copied()),
                    known.join(", ")
                )))
            }
        }
    }

    fn print_one(&self, screen: &Screen, info: &PartInfo) -> Result<(), Failure> {
        if self.json {
            return screen.print_json(&form(info));
        }
        let mut text = format!("{}: {}\n", info.name, info.about);
        if !info.paper.is_empty() {
            text.push_str(&format!("{}\n", info.paper));
        }
        if !info.parameters.is_empty() {
            text.push_str(&format!("\n{}", parameters::table(&info.parameters)));
        }
        text.push_str(&format!(
            "\nAs flags of simulate: --attack {}:FRACTION --attack-set KEY=VALUE\n",
            info.name
        ));
        screen.print(&text)
    }

    fn print_all(&self, screen: &Screen, infos: &[&PartInfo]) -> Result<(), Failure> {
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
            let parameters = parameters::line(&info.parameters);
            table.row([info.name.clone(), info.about.clone(), parameters]);
        }
        screen.print(&format!(
            "{table}\n\"fedavg simulate --attack NAME:FRACTION\" makes that fraction of the clients attack; --attack-set KEY=VALUE\n\
             sets a parameter. \"fedavg attacks NAME\" shows one attack with its parameters and its paper.\n"
        ))
    }
}

fn form(info: &PartInfo) -> AttackForm<'_> {
    AttackForm {
        name: &info.name,
        about: &info.about,
        paper: &info.paper,
        parameters: parameters::forms(&info.parameters),
    }
}

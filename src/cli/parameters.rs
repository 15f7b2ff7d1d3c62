//! Parameters of strategies and attacks, as tables and as JSON.

use serde::Serialize;
use serde_json::Value;

use super::{Align, Table, values::setting};
use crate::strategy::Parameter;

/// A parameter, as `--json` prints it.
#[derive(Serialize)]
pub(super) struct ParameterForm {
    name: String,
    about: String,
    range: String,
    default: Option<Value>,
}

pub(super) fn forms(parameters: &[Parameter]) -> Vec<ParameterForm> {
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

/// A line for each.
pub(super) fn table(parameters: &[Parameter]) -> Table {
    let mut table = Table::new(&[
        ("parameter", Align::Left),
        ("default", Align::Left),
        ("", Align::Left),
        ("", Align::Left),
    ]);
    for parameter in parameters {
        let default = parameter.default.as_ref();
        let default = default.map_or("none".to_string(), shown);
        let (range, about) = (parameter.kind.range(), parameter.about.clone());
        table.row([parameter.name.clone(), default, range, about]);
    }
    table
}

/// All in one line, each with its default.
pub(super) fn line(parameters: &[Parameter]) -> String {
    let mut words = Vec::new();
    for parameter in parameters {
        words.push(match &parameter.default {
            Some(default) => format!("{}={}", parameter.name, shown(default)),
            None => parameter.name.clone(),
        });
    }
    words.join(" ")
}

fn shown(value: &Value) -> String {
    // Whole numbers without a fraction, as people write them.
    value.as_f64().map_or_else(|| value.to_string(), setting)
}

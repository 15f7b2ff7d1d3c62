//! What a report carries: made of what a trainer produced, as the plan expects it.

use std::{collections::BTreeMap, sync::Arc};

use super::{LocalUpdate, PayloadValues};
use crate::{
    parameters::{
        Encoded, EncodingError, Form, Parameters, PayloadSpec, Payloads, Roles, encode,
        encode_top_k,
    },
    report::DELTA,
};

/// What a report has if its task does not say: a delta in f32.
pub(super) fn expected(expects: &[PayloadSpec]) -> Vec<PayloadSpec> {
    if expects.is_empty() {
        vec![PayloadSpec::model(DELTA, Roles::TRAINED)]
    } else {
        expects.to_vec()
    }
}

/// Encodes what the plan expects. `residuals` has, by payload, what sparse ones have left out so far; what they leave out now
/// takes its place.
///
/// # Errors
///
/// In words: the payload that the trainer did not produce, or that does not fit what is expected.
pub(super) fn encode_report(
    expects: &[PayloadSpec],
    update: LocalUpdate,
    global: &Parameters,
    residuals: &mut BTreeMap<String, Parameters>,
) -> Result<Payloads, String> {
    let delta = update.parameters.into_delta(global);
    let delta =
        delta.map_err(|error| format!("the local model does not fit the global one: {error}"))?;
    let mut produced = update.payloads;
    // In place of one that the trainer may have made: the worker takes the delta, nobody else.
    produced.insert(DELTA.to_string(), PayloadValues::Model(delta));
    let mut payloads = Vec::with_capacity(expects.len());
    for spec in expects {
        let name = &spec.name;
        // In the plan's order: it is the order of the parts in the body.
        let Some(values) = produced.remove(name) else {
            return Err(format!(
                "the plan expects the payload {name:?}, which the trainer did not produce"
            ));
        };
        let form = Form::of(spec, global.layout());
        let encoded = encode_values(form, values, residuals.remove(name));
        let (encoded, residual) = encoded.map_err(|error| cannot_encode(name, &error))?;
        if let Some(residual) = residual {
            residuals.insert(name.clone(), residual);
        }
        payloads.push((name.clone(), encoded));
    }
    Ok(Payloads::new(payloads))
}

/// Why a payload can't be encoded, and what to do about it.
fn cannot_encode(name: &str, error: &EncodingError) -> String {
    let what = if name == DELTA {
        "the change of the model".to_string()
    } else {
        format!("payload {name:?}")
    };
    let advice = match error {
        EncodingError::Overflow { .. } => {
            "; lower the learning rate (--lr), or choose --encoding bf16 or f32"
        }
        _ => "",
    };
    format!("{what} can't be encoded: {error}{advice}")
}

/// Encodes one payload; of a sparse one, also what is left out.
fn encode_values(
    form: Form,
    values: PayloadValues,
    residual: Option<Parameters>,
) -> Result<(Encoded, Option<Parameters>), EncodingError> {
    let mut values = match values {
        PayloadValues::Values(values) => return Ok((Encoded::values(form, values)?, None)),
        PayloadValues::Model(values) => values,
    };
    if form.encoding().is_dense() {
        return Ok((encode(&form, &Arc::new(values))?, None));
    }
    // What earlier reports left out is sent when it has grown large enough.
    if let Some(residual) = residual {
        for (value, left_out) in values.values_mut().iter_mut().zip(residual.values()) {
            *value += left_out;
        }
    }
    let encoded = encode_top_k(&form, &mut values)?;
    Ok((encoded, Some(values)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parameters::{DType, Encoding, Layout, Role, Values};

    fn parameters(values: [f32; 4]) -> Parameters {
        let layout = Layout::new([
            ("a".to_string(), vec![3], Role::Trainable),
            ("b.running_mean".to_string(), vec![1], Role::Buffer),
        ]);
        Parameters::new(layout.unwrap(), values.to_vec()).unwrap()
    }

    fn delta(encoding: Encoding) -> PayloadSpec {
        PayloadSpec::model(DELTA, Roles::TRAINED).with_encoding(encoding)
    }

    #[test]
    fn what_is_left_out_comes_with_the_next_report_and_buffers_leave_nothing() {
        let specs = [delta(Encoding::TopK { fraction: 0.3 })];
        let (global, mut residuals) = (parameters([0.0; 4]), BTreeMap::new());
        let mut send = |values| {
            let update = LocalUpdate::new(parameters(values), 1);
            let sent = encode_report(&specs, update, &global, &mut residuals).unwrap();
            sent.find(DELTA)
                .unwrap()
                .decode()
                .unwrap()
                .values()
                .to_vec()
        };
        assert_eq!(send([1.0, 0.75, 0.25, 9.0]), [1.0, 0.0, 0.0, 9.0]);
        assert_eq!(send([0.0, 0.0, 0.25, 1.0]), [0.0, 0.75, 0.0, 1.0]);
        assert_eq!(send([0.0, 0.0, 0.0, 0.0]), [0.0, 0.0, 0.5, 0.0]);
        assert_eq!(residuals[DELTA].values(), [0.0; 4]);
    }

    #[test]
    fn a_change_too_large_for_f16_is_named_with_what_to_do() {
        let update = LocalUpdate::new(parameters([1.0, -70_000.0, 0.0, 0.0]), 1);
        let specs = [delta(Encoding::F16)];
        let problem = encode_report(&specs, update, &parameters([0.0; 4]), &mut BTreeMap::new());
        assert_eq!(
            problem.unwrap_err(),
            "the change of the model can't be encoded: tensor \"a\" has the value -7.00e4, and the largest of f16 is \
             65504; lower the learning rate (--lr), or choose --encoding bf16 or f32"
        );
    }

    #[test]
    fn every_payload_of_the_plan_is_sent_and_no_other() {
        let specs = [
            delta(Encoding::F32),
            PayloadSpec::vector("counts", 2, DType::U64),
        ];
        let global = parameters([1.0; 4]);
        let mut update = LocalUpdate::new(parameters([2.0; 4]), 1);
        let missing = encode_report(&specs, update.clone(), &global, &mut BTreeMap::new());
        let problem = missing.unwrap_err();
        assert!(
            problem.contains("\"counts\"") && problem.contains("did not produce"),
            "{problem}"
        );
        for (name, values) in [("counts", vec![7, 8]), ("other", vec![1])] {
            let values = PayloadValues::Values(Values::U64(values));
            update.payloads.insert(name.to_string(), values);
        }
        let sent = encode_report(&specs, update.clone(), &global, &mut BTreeMap::new()).unwrap();
        let names: Vec<_> = sent.iter().map(|(name, _)| name).collect();
        assert_eq!(names, [DELTA, "counts"]);
        let three = PayloadValues::Values(Values::U64(vec![1, 2, 3]));
        update.payloads.insert("counts".to_string(), three);
        let wrong = encode_report(&specs, update, &global, &mut BTreeMap::new());
        assert!(wrong.unwrap_err().contains("\"counts\""));
    }
}

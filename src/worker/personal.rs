//! A client's own values of a model: they are put over the global model's before the client trains, and taken out of what it trained
//! before anything is sent. Nothing here knows a network or a trainer.

use std::sync::Arc;

use super::TrainError;
use crate::parameters::{Layout, Parameters, PayloadSpec, Role, Shape, TensorPatterns};

/// The global model as a client has it: with its own values of the personal tensors, or those of the initial model if there are none
/// yet.
///
/// # Errors
///
/// [`TrainError::Model`] if a personal tensor came as one that is averaged, or if the client's values do not fit the model.
pub(super) fn overlay(
    personal: &TensorPatterns,
    global: Arc<Parameters>,
    kept: Option<&Parameters>,
) -> Result<Arc<Parameters>, TrainError> {
    if personal.is_empty() {
        return Ok(global);
    }
    check_roles(personal, global.layout())?;
    let Some(kept) = kept else {
        return Ok(global);
    };
    let mut own = Parameters::clone(&global);
    for tensor in kept.layout().tensors() {
        let place = global.layout().find(&tensor.name);
        let place = place
            .filter(|place| place.shape == tensor.shape && personal.matches(&tensor.name))
            .ok_or_else(|| {
                TrainError::Model(format!(
                    "the client's own tensor {:?} is not a personal tensor of the model",
                    tensor.name
                ))
            })?;
        own.values_mut()[place.range()].copy_from_slice(&kept.values()[tensor.range()]);
    }
    Ok(Arc::new(own))
}

/// Whatever the coordinator sends: a tensor that the job calls personal is in no report.
fn check_roles(personal: &TensorPatterns, layout: &Layout) -> Result<(), TrainError> {
    for tensor in layout.tensors() {
        if tensor.role != Role::Frozen && personal.matches(&tensor.name) {
            return Err(TrainError::Model(format!(
                "tensor {:?} is personal, and the coordinator sent it as one that is averaged: it would leave this worker",
                tensor.name
            )));
        }
    }
    Ok(())
}

/// Refuses a task whose report would have the values of personal tensors.
///
/// # Errors
///
/// [`TrainError::Task`] names the payload.
pub(super) fn check_payloads(
    personal: &TensorPatterns,
    expects: &[PayloadSpec],
) -> Result<(), TrainError> {
    if personal.is_empty() {
        return Ok(());
    }
    for payload in expects {
        let asks = match payload.shape {
            Shape::Model(roles) => roles.contains(Role::Frozen),
            Shape::Vector(_) => false,
        };
        if asks {
            return Err(TrainError::Task(format!(
                "payload {:?} has the frozen tensors, and personal ones among them, which never leave this worker",
                payload.name
            )));
        }
    }
    Ok(())
}

/// Takes the client's own values out of its local model. In their place, and in that of all other tensors that are not averaged, are
/// then the values of the model that it started from: a delta has zeros there.
///
/// # Errors
///
/// [`TrainError::Report`] if the local model does not have the tensors of the one that it started from.
pub(super) fn take_out(
    personal: &TensorPatterns,
    local: &mut Parameters,
    start: &Parameters,
) -> Result<Option<Parameters>, TrainError> {
    let same = start.layout().check_same(local.layout());
    same.map_err(|error| {
        TrainError::Report(format!(
            "the local model does not fit the global one: {error}"
        ))
    })?;
    let (mut tensors, mut values) = (Vec::new(), Vec::new());
    for tensor in start.layout().tensors() {
        if tensor.role != Role::Frozen {
            continue;
        }
        if personal.matches(&tensor.name) {
            tensors.push((tensor.name.clone(), tensor.shape.clone(), tensor.role));
            values.extend_from_slice(&local.values()[tensor.range()]);
        }
        local.values_mut()[tensor.range()].copy_from_slice(&start.values()[tensor.range()]);
    }
    if tensors.is_empty() {
        return Ok(None);
    }
    // Layouts sort by name, as the start's did: the values are in its order.
    let own = Layout::new(tensors).and_then(|layout| Parameters::new(layout, values));
    let own = own.map_err(|error| TrainError::Model(error.to_string()))?;
    Ok(Some(own))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parameters::{DType, Encoding, Roles};

    fn model(values: [f32; 5], head: Role) -> Arc<Parameters> {
        let layout = Layout::new([
            ("body".to_string(), vec![1], Role::Trainable),
            ("fixed".to_string(), vec![1], Role::Frozen),
            ("head.bias".to_string(), vec![1], head),
            ("head.weight".to_string(), vec![2, 1], head),
        ]);
        Arc::new(Parameters::new(layout.unwrap(), values.to_vec()).unwrap())
    }

    fn head() -> TensorPatterns {
        TensorPatterns::new(["head.*"])
    }

    #[test]
    fn a_client_goes_on_with_its_own_values_on_the_next_global_model() {
        let first = model([1.0, 2.0, 3.0, 4.0, 5.0], Role::Frozen);
        let start = overlay(&head(), first.clone(), None).unwrap();
        assert!(
            Arc::ptr_eq(&start, &first),
            "nothing is copied as long as there is nothing"
        );
        let mut local = Parameters::clone(&start);
        local
            .values_mut()
            .iter_mut()
            .for_each(|value| *value += 10.0);
        let own = take_out(&head(), &mut local, &start).unwrap().unwrap();
        assert_eq!(own.values(), [13.0, 14.0, 15.0]);
        assert_eq!(local.values(), [11.0, 2.0, 3.0, 4.0, 5.0]);
        let second = model([6.0, 2.0, 3.0, 4.0, 5.0], Role::Frozen);
        let start = overlay(&head(), second, Some(&own)).unwrap();
        assert_eq!(start.values(), [6.0, 2.0, 13.0, 14.0, 15.0]);
    }

    #[test]
    fn without_personal_tensors_nothing_is_kept_and_frozen_ones_stay() {
        let global = model([1.0, 2.0, 3.0, 4.0, 5.0], Role::Trainable);
        let none = TensorPatterns::default();
        let start = overlay(&none, global.clone(), None).unwrap();
        let mut local = model([9.0; 5], Role::Buffer).as_ref().clone();
        assert_eq!(take_out(&none, &mut local, &start).unwrap(), None);
        assert_eq!(local.values(), [9.0, 2.0, 9.0, 9.0, 9.0]);
    }

    #[test]
    fn no_coordinator_gets_a_personal_tensor() {
        for role in [Role::Trainable, Role::Buffer] {
            let averaged = overlay(&head(), model([0.0; 5], role), None);
            let problem = averaged.unwrap_err().to_string();
            assert!(problem.contains("\"head.bias\" is personal"), "{problem}");
        }
        let all = PayloadSpec::model("control", Roles::ALL).with_encoding(Encoding::F16);
        let asked = check_payloads(&head(), std::slice::from_ref(&all));
        assert!(asked.unwrap_err().to_string().contains("\"control\""));
        let usual = [
            PayloadSpec::model("delta", Roles::TRAINED),
            PayloadSpec::vector("counts", 3, DType::U64),
        ];
        assert!(check_payloads(&head(), &usual).is_ok());
        assert!(check_payloads(&TensorPatterns::default(), &[all]).is_ok());
    }

    #[test]
    fn values_that_are_not_the_models_are_told() {
        let other = Layout::new([("head.weight".to_string(), vec![3], Role::Frozen)]).unwrap();
        let other = Parameters::zeros(other);
        let global = model([0.0; 5], Role::Frozen);
        let overlaid = overlay(&head(), global.clone(), Some(&other));
        assert!(
            overlaid
                .unwrap_err()
                .to_string()
                .contains("\"head.weight\"")
        );
        assert!(take_out(&head(), &mut other.clone(), &global).is_err());
    }
}

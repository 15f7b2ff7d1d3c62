//! What every [`ModelStore`] must keep, for this crate's own and for a third party's.
//!
//! Call [`everything`] from a test. A broken guarantee panics with what is wrong; each function names the numbers of
//! [`ModelStore`]'s contract that it checks. Each property uses a job of its own.

use std::{collections::BTreeMap, sync::Arc};

use super::{ModelForm, ModelStore, ModelWriter, StateForm, StoreError, StoredModel};
use crate::{
    ids::{JobId, ModelVersion},
    parameters::{
        Digest, Encoded, Encoding, Form, Layout, Parameters, Role, Roles, StoredBody, encode,
    },
};

const BLOCK: usize = 64 * 1024;

/// Asserts the whole contract of [`ModelStore`].
///
/// # Panics
///
/// If the contract is broken.
pub fn everything(models: &dyn ModelStore) {
    gives_back_what_was_written(models);
    keeps_readable_what_is_held(models);
    replaces_a_version_that_is_published_again(models);
    refuses_what_has_no_form(models);
    keeps_the_state_with_its_version(models);
}

/// Guarantee 2: values, file and body are those that the encodings make of the same model, in every encoding and order of blocks.
///
/// # Panics
///
/// If they aren't.
pub fn gives_back_what_was_written(models: &dyn ModelStore) {
    let encodings = [Encoding::F32, Encoding::F16, Encoding::Bf16, Encoding::Int8];
    let mut version = ModelVersion(0);
    for encoding in encodings {
        for forwards in [true, false] {
            let expected = parameters(version.0);
            let model = publish(models, JobId(1), version, encoding, &expected, forwards);
            let model = model.expect("a whole model");
            assert_eq!(*model.parameters().expect("values"), *expected);
            let mut part = [0.0; 1000];
            model.read(65_000, &mut part).expect("a block");
            assert_eq!(part, expected.values()[65_000..66_000]);
            assert!(model.read(expected.layout().len(), &mut part).is_err());
            assert_body(&*model.file(), &Encoded::plain(expected.clone()));
            assert_body(&*model.body(), &sent(encoding, &expected));
            assert!(model.frozen().is_none(), "no tensor is frozen");
            version = version.next();
        }
    }
    models.remove(JobId(1), None);
}

/// Guarantee 3: a model that was handed out stays readable after its removal.
///
/// # Panics
///
/// If it doesn't.
pub fn keeps_readable_what_is_held(models: &dyn ModelStore) {
    for version in [Some(ModelVersion(0)), None] {
        let expected = parameters(1);
        let model = publish(
            models,
            JobId(2),
            ModelVersion(0),
            Encoding::F16,
            &expected,
            true,
        );
        let model = model.expect("a whole model");
        models.remove(JobId(2), version);
        assert_eq!(*model.parameters().expect("values"), *expected);
        assert_body(&*model.body(), &sent(Encoding::F16, &expected));
    }
}

/// Guarantees 1 and 4: a version that is published again replaces the first; a writer that is dropped replaces nothing and disturbs no
/// other.
///
/// # Panics
///
/// If that is not so.
pub fn replaces_a_version_that_is_published_again(models: &dyn ModelStore) {
    let (job, version) = (JobId(3), ModelVersion(4));
    let form = ModelForm::new(layout(), Encoding::Int8);
    let mut dropped = models.begin(job, version, &form).expect("a version begins");
    let first = publish(models, job, version, Encoding::Int8, &parameters(1), true);
    dropped.write(0, &[9.0; 256]).expect("a block");
    drop(dropped);
    let second = publish(models, job, version, Encoding::Int8, &parameters(2), false);
    let [first, second] = [first, second].map(|model| model.expect("a whole model"));
    assert_eq!(*first.parameters().expect("values"), *parameters(1));
    assert_eq!(*second.parameters().expect("values"), *parameters(2));
    models.remove(job, None);
}

/// Guarantees 1 and 5: a value that the encoding doesn't have is an error that names the tensor, and nothing has appeared.
///
/// # Panics
///
/// If it isn't.
pub fn refuses_what_has_no_form(models: &dyn ModelStore) {
    let mut values = parameters(1).values().to_vec();
    values[131_100] = 1e6;
    let large = Arc::new(Parameters::new(layout(), values).expect("values of the layout"));
    for forwards in [true, false] {
        let model = publish(
            models,
            JobId(4),
            ModelVersion(0),
            Encoding::F16,
            &large,
            forwards,
        );
        let error = model.err().expect("an error");
        assert!(
            matches!(&error, StoreError::Encoding(detail) if detail.contains("\"b\"")),
            "{error}"
        );
    }
    let model = publish(
        models,
        JobId(4),
        ModelVersion(0),
        Encoding::Bf16,
        &large,
        true,
    );
    assert!(model.is_ok(), "bf16 has this value");
    models.remove(JobId(4), None);
}

/// Guarantees 2 and 3: state tensors and numbers are those of their version, whatever is written later; offered ones are bodies; frozen tensors are
/// apart.
///
/// # Panics
///
/// If they aren't.
pub fn keeps_the_state_with_its_version(models: &dyn ModelStore) {
    let tensors = [
        ("a", vec![300], Role::Trainable),
        ("b", vec![40], Role::Frozen),
        ("c.running_var", vec![5], Role::Buffer),
    ];
    let tensors = tensors.map(|(name, shape, role)| (name.to_string(), shape, role));
    let layout = Layout::new(tensors).expect("a layout");
    let values = |seed: u64| {
        let values = (0..layout.len() as u64)
            .map(|index| ((index * 31 + seed * 7) % 97) as f32 / 97.0)
            .collect();
        Arc::new(Parameters::new(layout.clone(), values).expect("values of the layout"))
    };
    let mut form = ModelForm::new(layout.clone(), Encoding::Int8);
    form.states.push(StateForm::new("m", Roles::TRAINABLE));
    form.states
        .push(StateForm::new("control", Roles::TRAINED).offered());
    let mut held = Vec::new();
    for version in 0..2u64 {
        let writer = models.begin(JobId(5), ModelVersion(version), &form);
        let mut writer = writer.expect("a version begins");
        for block in layout.blocks() {
            let range = block.range.clone();
            let part = |seed| values(seed).values()[range.clone()].to_vec();
            writer.write(range.start, &part(version)).expect("a block");
            for (index, state) in form.states.iter().enumerate() {
                if state.roles.contains(block.role) {
                    let seed = 10 * (index as u64 + 1) + version;
                    let written = writer.write_state(index, range.start, &part(seed));
                    written.expect("a block of the state");
                }
            }
        }
        assert!(
            writer.write_state(2, 0, &[0.0]).is_err(),
            "a state that there is not"
        );
        let numbers = BTreeMap::from([("step".to_string(), version as f64)]);
        held.push(writer.publish(&numbers).expect("a whole version"));
    }
    models.remove(JobId(5), None);
    for (version, model) in (0..).zip(&held) {
        assert_eq!(model.numbers()["step"], version as f64);
        assert_eq!(*model.parameters().expect("values"), *values(version));
        for (index, state) in form.states.iter().enumerate() {
            let expected = values(10 * (index as u64 + 1) + version);
            let form = Form::new(Encoding::F32, layout.clone(), state.roles);
            let expected = encode(&form, &expected).expect("finite values");
            let mut found = vec![0.0; layout.len()];
            let read = model.state(&state.name).expect("a state");
            read.read(0, &mut found).expect("values of the state");
            assert_eq!(found, expected.decode().expect("memory").values());
            let body = model.payload(&state.name);
            assert_eq!(
                body.is_some(),
                state.offered,
                "only what is offered is a payload"
            );
            if let Some(body) = body {
                assert_named_body(&*body, &format!("{}/", state.name), &expected);
            }
        }
        let frozen = Form::new(Encoding::F32, layout.clone(), Roles::FROZEN);
        let frozen = encode(&frozen, &values(version)).expect("finite values");
        assert_body(&*model.frozen().expect("a frozen tensor"), &frozen);
        assert!(model.state("other").is_none() && model.payload("other").is_none());
    }
}

/// Two whole blocks in the first tensor, and a block of the other two.
fn layout() -> Arc<Layout> {
    let tensors = [
        ("a", vec![BLOCK, 2], Role::Trainable),
        ("b", vec![100], Role::Trainable),
        ("c.running_mean", vec![33], Role::Buffer),
    ];
    let tensors = tensors.map(|(name, shape, role)| (name.to_string(), shape, role));
    Layout::new(tensors).expect("a layout")
}

fn parameters(seed: u64) -> Arc<Parameters> {
    let layout = layout();
    let mut values = Vec::with_capacity(layout.len());
    for index in 1..=layout.len() as u64 {
        let mixed = index.wrapping_mul(2_654_435_761 + 2 * seed) as u32;
        values.push((mixed >> 8) as f32 / (1 << 24) as f32 - 0.5);
    }
    Arc::new(Parameters::new(layout, values).expect("values of the layout"))
}

fn publish(
    models: &dyn ModelStore,
    job: JobId,
    version: ModelVersion,
    encoding: Encoding,
    parameters: &Parameters,
    forwards: bool,
) -> Result<Arc<dyn StoredModel>, StoreError> {
    let form = ModelForm::new(parameters.layout().clone(), encoding);
    let mut writer = models.begin(job, version, &form)?;
    write(&mut *writer, parameters, forwards);
    writer.publish(&BTreeMap::new())
}

/// What workers get of a model.
fn sent(encoding: Encoding, parameters: &Arc<Parameters>) -> Encoded {
    let form = Form::new(encoding, parameters.layout().clone(), Roles::TRAINED);
    encode(&form, parameters).expect("finite values")
}

fn write(writer: &mut dyn ModelWriter, parameters: &Parameters, forwards: bool) {
    let mut blocks = parameters.layout().blocks();
    if !forwards {
        blocks.reverse();
    }
    for block in blocks {
        let values = &parameters.values()[block.range.clone()];
        writer.write(block.range.start, values).expect("a block");
    }
}

fn assert_body(body: &dyn StoredBody, expected: &Encoded) {
    assert_named_body(body, "", expected);
}

fn assert_named_body(body: &dyn StoredBody, prefix: &str, expected: &Encoded) {
    let bytes = expected.pieces(prefix).concat();
    assert_eq!(body.encoding(), expected.form().encoding());
    assert_eq!(body.length(), bytes.len() as u64);
    assert_eq!(body.digest(), Digest::of(&bytes), "the digest of all bytes");
    let mut found = vec![0; bytes.len()];
    body.read(0, &mut found).expect("the whole body");
    assert!(found == bytes, "the body is not the model's");
    body.read(9, &mut found[..100]).expect("a part of the body");
    assert!(found[..100] == bytes[9..109], "a part is another one");
    let past = body.read(bytes.len() as u64 - 1, &mut found[..2]);
    assert!(past.is_err(), "bytes past the end");
}

mod fuzz;

use std::sync::Arc;

use half::{bf16, f16};
use proptest::prelude::*;

use super::*;
use crate::parameters::{
    Block, BlockBuffer, BlockReader, DType, Digest, Layout, LayoutError, Parameters, PayloadSpec,
    Role, Roles,
    safetensors::{self, SafetensorsError},
};

const DENSE: [Encoding; 4] = [Encoding::F32, Encoding::F16, Encoding::Bf16, Encoding::Int8];
const SPARSE: Encoding = Encoding::TopK { fraction: 0.1 };

/// Three tensors, so that neither tensors nor their ends stand at multiples of anything.
fn parameters(values: &[f32]) -> Arc<Parameters> {
    let first = values.len() / 3;
    let layout = Layout::new([
        ("a".to_string(), vec![first], Role::Trainable),
        ("b".to_string(), vec![], Role::Buffer),
        (
            "c".to_string(),
            vec![values.len() - first - 1],
            Role::Trainable,
        ),
    ])
    .unwrap();
    Arc::new(Parameters::new(layout, values.to_vec()).unwrap())
}

fn form(encoding: Encoding, layout: &Arc<Layout>) -> Form {
    Form::new(encoding, layout.clone(), Roles::TRAINED)
}

fn encoded(encoding: Encoding, parameters: &Arc<Parameters>) -> Encoded {
    encode(&form(encoding, parameters.layout()), parameters).unwrap()
}

fn body(encoded: &Encoded) -> Vec<u8> {
    Payloads::delta(encoded.clone()).pieces().concat()
}

/// What a coordinator makes of a body that comes in pieces of this size.
fn take(
    encoding: Encoding,
    layout: &Arc<Layout>,
    body: &[u8],
    piece: usize,
) -> Result<Encoded, EncodingError> {
    let form = BodyForm::one("delta", form(encoding, layout));
    let payloads = take_all(form, body, piece)?;
    Ok(payloads.find("delta").unwrap().clone())
}

fn take_all(form: BodyForm, body: &[u8], piece: usize) -> Result<Payloads, EncodingError> {
    let mut decoder = BodyDecoder::new(Arc::new(form));
    let mut sink = MemorySink::default();
    for piece in body.chunks(piece) {
        decoder.push(piece, &mut sink)?;
    }
    Ok(sink.finish(decoder.finish(Some(Digest::of(body)))?))
}

fn values() -> impl Strategy<Value = Vec<f32>> {
    let value = prop_oneof![
        8 => -2f32..2.0,
        1 => Just(0.0f32),
        1 => (-30i32..15, -1f32..1.0).prop_map(|(exponent, value)| value * 2f32.powi(exponent)),
    ];
    prop::collection::vec(value, 2..1500)
}

/// The largest error that the encoding's documentation allows for a value of its group.
fn bound(encoding: Encoding, value: f32, group: &[f32]) -> f32 {
    match encoding {
        Encoding::F16 => (value.abs() * 2f32.powi(-11)).max(2f32.powi(-25)),
        Encoding::Bf16 => (value.abs() * 2f32.powi(-8)).max(f32::MIN_POSITIVE),
        Encoding::Int8 => {
            let largest = group.iter().fold(0f32, |most, value| most.max(value.abs()));
            // Half of the scale, which is rounded up by less than 2^-15 of itself; and the rounding of the quotient.
            largest / 127.0 * 0.5 * 1.0001 + f32::MIN_POSITIVE
        }
        _ => 0.0,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn every_dense_encoding_comes_back_within_its_bound(values in values()) {
        let parameters = parameters(&values);
        for encoding in DENSE {
            let decoded = encoded(encoding, &parameters).decode().unwrap();
            for (index, (found, value)) in decoded.values().iter().zip(&values).enumerate() {
                let tensors = parameters.layout().tensors();
                let tensor = tensors.iter().find(|spec| spec.range().contains(&index)).unwrap();
                // A group is within a tensor.
                let start = tensor.range().start + (index - tensor.range().start) / GROUP * GROUP;
                let group = &values[start..tensor.range().end.min(start + GROUP)];
                let error = (found - value).abs();
                let bound = if tensor.role == Role::Buffer { 0.0 } else { bound(encoding, *value, group) };
                prop_assert!(error <= bound, "{encoding} {index}: {value} {found}");
            }
        }
    }

    #[test]
    fn a_body_in_any_pieces_is_the_payload_it_was_made_of(values in values(), piece in prop_oneof![1usize..9, 100usize..3000]) {
        let parameters = parameters(&values);
        for encoding in DENSE.into_iter().chain([SPARSE]) {
            let encoded = encoded(encoding, &parameters);
            let taken = take(encoding, parameters.layout(), &body(&encoded), piece).unwrap();
            prop_assert_eq!(taken.form(), encoded.form());
            prop_assert_eq!(taken.source().as_ref(), encoded.source().as_ref());
            prop_assert_eq!(taken.decode().unwrap(), encoded.decode().unwrap());
        }
    }

    #[test]
    fn any_block_is_that_part_of_the_whole(values in values(), cut in (0usize..1500, 0usize..1500)) {
        let parameters = parameters(&values);
        let (a, b) = (cut.0 % (values.len() + 1), cut.1 % (values.len() + 1));
        let range = a.min(b)..a.max(b);
        for encoding in DENSE.into_iter().chain([SPARSE]) {
            let encoded = encoded(encoding, &parameters);
            let whole = encoded.decode().unwrap();
            let mut buffer = BlockBuffer::default();
            let mut part = vec![f32::NAN; range.len()];
            let mut start = range.start;
            while start < range.end {
                let end = encoded.uniform_end(start).min(range.end);
                prop_assert!(end > start);
                let out = &mut part[start - range.start..end - range.start];
                encoded.block(start..end, &mut buffer).unwrap().decode(out);
                start = end;
            }
            prop_assert_eq!(&part, &whole.values()[range.clone()]);
            part.fill(f32::NAN);
            encoded.read(range.start, &mut part).unwrap();
            prop_assert_eq!(&part, &whole.values()[range.clone()]);
        }
    }

    /// What is sent and what is left add up to what was there, and nothing that is left is larger than what is sent.
    #[test]
    fn top_k_takes_the_largest_and_leaves_the_rest(values in values(), fraction in 0.001f64..1.0) {
        let encoding = Encoding::TopK { fraction };
        let parameters = parameters(&values);
        let mut rest = (*parameters).clone();
        let encoded = encode_top_k(&form(encoding, parameters.layout()), &mut rest).unwrap();
        let sent = encoded.decode().unwrap();
        let buffer = parameters.layout().find("b").unwrap().range().start;
        let is_trainable = |index: &usize| *index != buffer;
        let trainable: Vec<usize> = (0..values.len()).filter(is_trainable).collect();
        let most = (fraction * trainable.len() as f64).ceil() as usize;
        let nonzero = trainable.iter().filter(|index| values[**index] != 0.0).count();
        prop_assert_eq!(encoded.form().entries(), most.min(nonzero));
        let (sent, rest) = (sent.values(), rest.values());
        let taken = trainable.iter().filter(|index| sent[**index] != 0.0);
        let smallest = taken.fold(f32::INFINITY, |least, index| least.min(sent[*index].abs()));
        for index in trainable {
            prop_assert_eq!(sent[index] + rest[index], values[index]);
            prop_assert!(sent[index] == 0.0 || rest[index] == 0.0);
            prop_assert!(rest[index].abs() <= smallest);
        }
        // A buffer is sent as it is, whatever its size, and leaves nothing.
        prop_assert_eq!((sent[buffer], rest[buffer]), (values[buffer], 0.0));
    }
}

/// Over many rounds, what has been sent is what was there, less what is still owed: one value's worth, not a share of all.
#[test]
fn error_feedback_loses_nothing_over_time() {
    let encoding = Encoding::TopK { fraction: 0.05 };
    let len = 200;
    let (mut total, mut sent) = (vec![0f64; len], vec![0f64; len]);
    let mut owed = (*parameters(&vec![0.0; len])).clone();
    for round in 0..400u32 {
        for (index, value) in owed.values_mut().iter_mut().enumerate() {
            // Small steady drifts that no single round's choice would ever take, and some noise.
            let noise = ((round as usize * 31 + index * 17) % 64) as f32 / 64.0 - 0.5;
            let delta = (index as f32 - 100.0) / 1024.0 + noise / 4.0;
            *value += delta;
            total[index] += f64::from(delta);
        }
        let form = form(encoding, owed.layout());
        let report = encode_top_k(&form, &mut owed).unwrap().decode().unwrap();
        let largest = owed
            .values()
            .iter()
            .fold(0f32, |most, value| most.max(value.abs()));
        assert!(largest < 4.0, "what is owed stays bounded: {largest}");
        for (sum, value) in sent.iter_mut().zip(report.values()) {
            *sum += f64::from(*value);
        }
    }
    for (index, (total, sent)) in total.iter().zip(&sent).enumerate() {
        let missing = total - sent - f64::from(owed.values()[index]);
        assert!(missing.abs() < 1e-3, "{index}: {missing}");
    }
}

#[test]
fn of_equal_values_the_first_are_sent_and_zeros_never() {
    let values = [0.0, 1.0, -1.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0];
    let entries = |fraction| {
        let encoded = encoded(Encoding::TopK { fraction }, &parameters(&values));
        let mut buffer = BlockBuffer::default();
        let mut found = Vec::new();
        for range in [0..3, 4..values.len()] {
            match encoded.block(range, &mut buffer).unwrap() {
                Block::Sparse { indices, .. } => found.extend_from_slice(indices),
                other => panic!("{other:?}"),
            }
        }
        found
    };
    // Value 3 is the buffer: indices count trainable values alone.
    assert_eq!(entries(0.2), [1, 2]);
    assert_eq!(entries(0.9), [1, 2, 4]);
}

#[test]
fn halves_are_rounded_as_the_standard_says() {
    let values = [
        65504.0,
        1.0 + 2f32.powi(-11),
        2f32.powi(-24),
        2f32.powi(-26),
        -0.1,
    ];
    let rounded = |encoding, round: fn(f32) -> f32| {
        let decoded = encoded(encoding, &parameters(&values)).decode().unwrap();
        let mut expected = values.map(round);
        // The buffer.
        expected[1] = values[1];
        assert_eq!(decoded.values(), expected);
    };
    rounded(Encoding::F16, |value| f16::from_f32(value).to_f32());
    rounded(Encoding::Bf16, |value| bf16::from_f32(value).to_f32());
}

#[test]
fn values_without_a_form_are_named_errors() {
    let not_finite = |encoding, value| {
        let mut values = vec![1.0; 900];
        values[899] = value;
        let parameters = parameters(&values);
        match encode(&form(encoding, parameters.layout()), &parameters) {
            Err(EncodingError::Malformed(SafetensorsError::NotFinite { name })) => name,
            other => panic!("{encoding}: {other:?}"),
        }
    };
    for encoding in [Encoding::F16, Encoding::Bf16, Encoding::Int8, SPARSE] {
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert_eq!(not_finite(encoding, value), "c");
        }
    }
}

#[test]
fn a_value_too_large_for_an_encoding_is_named_with_the_largest() {
    let mut values = vec![1.0; 900];
    values[899] = -81_234.0;
    let parameters = parameters(&values);
    let error = encode(&form(Encoding::F16, parameters.layout()), &parameters).unwrap_err();
    assert_eq!(
        error.to_string(),
        "tensor \"c\" has the value -8.12e4, and the largest of f16 is 65504"
    );
}

#[test]
fn a_body_that_is_not_what_the_job_asks_for_is_a_typed_error() {
    let values: Vec<_> = (0..600).map(|value| value as f32 - 300.0).collect();
    let parameters = parameters(&values);
    let layout = parameters.layout();
    let of = |encoding| body(&encoded(encoding, &parameters));
    let error = |encoding, body: &[u8]| match take(encoding, layout, body, 512) {
        Err(EncodingError::Malformed(error)) => error,
        other => panic!("{other:?}"),
    };
    for encoding in DENSE.into_iter().chain([SPARSE]) {
        for other in DENSE.into_iter().chain([SPARSE]) {
            if encoding != other {
                error(encoding, &of(other));
            }
        }
        let whole = of(encoding);
        let short = error(encoding, &whole[..whole.len() - 1]);
        assert_eq!(short, SafetensorsError::Truncated { missing: 1 });
        let long = error(encoding, &[&whole[..], &[0]].concat());
        assert_eq!(long, SafetensorsError::TooLong);
    }
    // The last two bytes are the last value's upper half: an infinity in either format.
    for (encoding, infinity) in [(Encoding::F16, 0x7c00u16), (Encoding::Bf16, 0x7f80)] {
        let mut bytes = of(encoding);
        let end = bytes.len();
        bytes[end - 2..].copy_from_slice(&infinity.to_le_bytes());
        let name = "delta/c".to_string();
        assert_eq!(
            error(encoding, &bytes),
            SafetensorsError::NotFinite { name }
        );
    }
    let payload = |bytes: &[u8]| 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    for scale in [-1f32, f32::NAN, f32::INFINITY, f32::from_bits(0x3f80_0001)] {
        let mut bytes = of(Encoding::Int8);
        let start = payload(&bytes);
        bytes[start..start + 4].copy_from_slice(&scale.to_le_bytes());
        let name = "delta/@scales".to_string();
        assert_eq!(
            error(Encoding::Int8, &bytes),
            SafetensorsError::Scale { name }
        );
    }
    // The first index is past the end, and then the same as the second.
    for index in [599u32, 1] {
        let mut bytes = of(Encoding::TopK { fraction: 1.0 });
        let start = payload(&bytes) + 4 * 598;
        bytes[start..start + 4].copy_from_slice(&index.to_le_bytes());
        let name = "delta/@indices".to_string();
        let found = error(Encoding::TopK { fraction: 1.0 }, &bytes);
        assert_eq!(found, SafetensorsError::Index { name });
    }
    let found = error(SPARSE, &of(Encoding::TopK { fraction: 0.2 }));
    let expected = SafetensorsError::Entries {
        found: 120,
        limit: 60,
    };
    assert_eq!(found, expected);
}

#[test]
fn a_body_with_another_digest_is_refused() {
    let parameters = parameters(&[1.0, 2.0, 3.0]);
    let encoded = encoded(Encoding::F32, &parameters);
    let mut bytes = body(&encoded);
    let announced = Digest::of(&bytes);
    // Another value that is as good, as far as anybody can see.
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    let form = BodyForm::one("delta", form(Encoding::F32, parameters.layout()));
    let mut decoder = BodyDecoder::new(Arc::new(form));
    decoder.push(&bytes, &mut MemorySink::default()).unwrap();
    let found = Digest::of(&bytes);
    let expected = SafetensorsError::Digest { announced, found };
    assert_eq!(decoder.finish(Some(announced)), Err(expected.into()));
}

#[test]
fn names_read_back_and_others_are_refused() {
    for text in ["f32", "f16", "bf16", "int8", "top_k:0.25"] {
        assert_eq!(text.parse::<Encoding>().unwrap().to_string(), text);
    }
    let fraction = DEFAULT_FRACTION;
    assert_eq!("top_k".parse(), Ok(Encoding::TopK { fraction }));
    for text in [
        "",
        "F32",
        "int4",
        "top_k:",
        "top_k:0",
        "top_k:1.1",
        "top_k:nan",
        "top_k:-1",
    ] {
        let error = text.parse::<Encoding>().unwrap_err();
        assert_eq!(error, UnknownEncoding(text.to_string()));
    }
}

/// Roles that alternate, frozen tensors among them, and tensors that are longer than a group, empty, and scalars.
fn mixed(seed: u32) -> Arc<Parameters> {
    let tensors = [
        ("a", vec![300], Role::Trainable),
        ("b", vec![7], Role::Buffer),
        ("c", vec![5, 9], Role::Frozen),
        ("d", vec![1], Role::Trainable),
        ("e", vec![0, 3], Role::Trainable),
        ("f", vec![2, 400], Role::Trainable),
        ("g", vec![], Role::Buffer),
        ("h", vec![3], Role::Frozen),
    ];
    let tensors = tensors.map(|(name, shape, role)| (name.to_string(), shape, role));
    let layout = Layout::new(tensors).unwrap();
    let value = |index: u32| ((index * 37 + seed * 11) % 257) as f32 / 128.0 - 1.0;
    let values = (0..layout.len() as u32).map(value).collect();
    Arc::new(Parameters::new(layout, values).unwrap())
}

/// The values that a payload of these roles has, zeros for others.
fn masked(parameters: &Parameters, roles: Roles) -> Vec<f32> {
    let mut values = parameters.values().to_vec();
    for spec in parameters.layout().tensors() {
        if !roles.contains(spec.role) {
            values[spec.range()].fill(0.0);
        }
    }
    values
}

#[test]
fn three_payloads_of_three_types_come_back_from_one_body() {
    let parameters = mixed(1);
    let layout = parameters.layout();
    let specs = [
        PayloadSpec::model("delta", Roles::TRAINED).with_encoding(Encoding::Int8),
        PayloadSpec::model("masked", Roles::TRAINABLE).with_dtype(DType::U64),
        PayloadSpec::vector("counts", 5, DType::F64),
    ];
    let form = BodyForm::of(&specs, layout);
    let forms = form.parts();
    let integers = Values::U64(
        (0..forms[1].form.trainable() as u64)
            .map(|value| value << 40)
            .collect(),
    );
    let counts = Values::F64(vec![0.1, -2.0, 1e300, 0.0, 5.5]);
    let payloads = Payloads::new(vec![
        (
            "delta".to_string(),
            encode(&forms[0].form, &parameters).unwrap(),
        ),
        (
            "masked".to_string(),
            Encoded::values(forms[1].form.clone(), integers.clone()).unwrap(),
        ),
        (
            "counts".to_string(),
            Encoded::values(forms[2].form.clone(), counts).unwrap(),
        ),
    ]);
    let body = payloads.pieces().concat();
    assert_eq!(payloads.digest(), Digest::of(&body));
    for piece in [1, 7, 1000, body.len()] {
        let taken = take_all(form.clone(), &body, piece).unwrap();
        let delta = taken.find("delta").unwrap();
        let sent = payloads.find("delta").unwrap();
        assert_eq!(delta.decode().unwrap(), sent.decode().unwrap());
        let mut buffer = BlockBuffer::default();
        let masked = taken.find("masked").unwrap();
        let mut found = Vec::new();
        let mut start = 0;
        while start < layout.len() {
            let end = masked.uniform_end(start);
            if let Block::U64(values) = masked.block(start..end, &mut buffer).unwrap() {
                found.extend_from_slice(values);
            }
            start = end;
        }
        assert_eq!(Values::U64(found), integers);
        let counts = taken.find("counts").unwrap();
        match counts.block(1..4, &mut buffer).unwrap() {
            Block::F64(values) => assert_eq!(values, [-2.0, 1e300, 0.0]),
            other => panic!("{other:?}"),
        }
    }
    // One payload less, one more, and one of another type.
    let fewer = BodyForm::of(&specs[..2], layout);
    let error = take_all(fewer, &body, 512).unwrap_err();
    let name = "counts/vector".to_string();
    assert_eq!(error, LayoutError::Unexpected { name: name.clone() }.into());
    let two = Payloads::new(
        payloads
            .iter()
            .take(2)
            .map(|(name, one)| (name.to_string(), one.clone()))
            .collect(),
    );
    let error = take_all(form, &two.pieces().concat(), 512).unwrap_err();
    assert_eq!(error, LayoutError::Missing { name }.into());
    let other = BodyForm::of(
        &[
            specs[0].clone(),
            specs[1].clone().with_dtype(DType::U32),
            specs[2].clone(),
        ],
        layout,
    );
    let error = take_all(other, &body, 512).unwrap_err();
    assert!(
        matches!(&error, EncodingError::Malformed(SafetensorsError::Dtype { name, .. }) if name == "masked/a"),
        "{error}"
    );
}

#[test]
fn a_payload_of_any_layout_keeps_the_roles_of_its_tensors() {
    let parameters = mixed(3);
    for (name, prefix) in [("", ""), ("control", "control/")] {
        let mut body = safetensors::header(parameters.layout(), prefix);
        body.extend_from_slice(bytemuck::cast_slice(parameters.values()));
        let mut decoder = BodyDecoder::any_payload(name, Encoding::F32);
        decoder.push(&body, &mut MemorySink::default()).unwrap();
        let form = decoder.finish(None).unwrap();
        let found = form.parts()[0].form.layout().tensors();
        assert_eq!(found, parameters.layout().tensors(), "{name:?}");
    }
}

#[test]
fn each_role_travels_in_its_own_way() {
    let parameters = mixed(3);
    let layout = parameters.layout();
    for encoding in DENSE.into_iter().chain([Encoding::TopK { fraction: 1.0 }]) {
        let sent = encoded(encoding, &parameters);
        let taken = take(encoding, layout, &body(&sent), 100).unwrap();
        let decoded = taken.decode().unwrap();
        let expected = masked(&parameters, Roles::TRAINED);
        for spec in layout.tensors() {
            let (found, expected) = (&decoded.values()[spec.range()], &expected[spec.range()]);
            if spec.role == Role::Trainable && encoding != Encoding::F32 {
                let error = found.iter().zip(expected).map(|(a, b)| (a - b).abs());
                assert!(error.fold(0.0, f32::max) < 0.01, "{encoding} {}", spec.name);
            } else {
                assert_eq!(found, expected, "{encoding} {}", spec.name);
            }
        }
    }
    // A body of protocol 1 has the frozen tensors, too.
    let whole = encode(&Form::file(layout.clone()), &parameters).unwrap();
    let taken = take(Encoding::F32, layout, &body(&whole), 64).unwrap();
    assert_eq!(
        taken.decode().unwrap().values(),
        masked(&parameters, Roles::TRAINED)
    );
}

#[test]
fn a_number_that_is_not_finite_is_found_in_every_float_type() {
    let layout = mixed(0).layout().clone();
    let spec = [PayloadSpec::vector("v", 2, DType::F64)];
    let form = BodyForm::of(&spec, &layout);
    let values =
        Encoded::values(form.parts()[0].form.clone(), Values::F64(vec![1.0, 2.0])).unwrap();
    let mut body = Payloads::new(vec![("v".to_string(), values)])
        .pieces()
        .concat();
    let end = body.len();
    body[end - 8..].copy_from_slice(&f64::NAN.to_le_bytes());
    let error = take_all(form.clone(), &body, 3).unwrap_err();
    let name = "v/vector".to_string();
    assert_eq!(error, SafetensorsError::NotFinite { name }.into());
    let made = Encoded::values(
        form.parts()[0].form.clone(),
        Values::F64(vec![1.0, f64::INFINITY]),
    );
    assert!(made.is_err());
}

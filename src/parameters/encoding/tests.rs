use std::sync::Arc;

use half::{bf16, f16};
use proptest::prelude::*;

use super::*;
use crate::parameters::{
    Block, BlockBuffer, BlockReader, Digest, Layout, Parameters, Role,
    safetensors::SafetensorsError,
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

fn body(encoded: &Encoded) -> Vec<u8> {
    encoded.pieces("delta/").concat()
}

/// What a coordinator makes of a body that comes in pieces of this size.
fn take(
    encoding: Encoding,
    layout: &Arc<Layout>,
    body: &[u8],
    piece: usize,
) -> Result<Encoded, EncodingError> {
    let mut decoder = BodyDecoder::new(encoding, Some(layout.clone()), "delta/");
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
            let decoded = encode(encoding, &parameters).unwrap().decode().unwrap();
            for (index, (found, value)) in decoded.values().iter().zip(&values).enumerate() {
                let start = index / GROUP * GROUP;
                let group = &values[start..values.len().min(start + GROUP)];
                let error = (found - value).abs();
                prop_assert!(error <= bound(encoding, *value, group), "{encoding} {index}: {value} {found}");
            }
        }
    }

    #[test]
    fn a_body_in_any_pieces_is_the_payload_it_was_made_of(values in values(), piece in prop_oneof![1usize..9, 100usize..3000]) {
        let parameters = parameters(&values);
        for encoding in DENSE.into_iter().chain([SPARSE]) {
            let encoded = encode(encoding, &parameters).unwrap();
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
            let encoded = encode(encoding, &parameters).unwrap();
            let whole = encoded.decode().unwrap();
            let mut buffer = BlockBuffer::default();
            let mut part = vec![f32::NAN; range.len()];
            encoded.block(range.clone(), &mut buffer).unwrap().decode(&mut part);
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
        let encoded = encode_top_k(encoding, &mut rest).unwrap();
        let sent = encoded.decode().unwrap();
        let most = (fraction * values.len() as f64).ceil() as usize;
        let nonzero = values.iter().filter(|value| **value != 0.0).count();
        prop_assert_eq!(encoded.form().entries(), most.min(nonzero));
        let smallest = sent.values().iter().filter(|value| **value != 0.0).fold(f32::INFINITY, |least, value| least.min(value.abs()));
        for ((value, sent), rest) in values.iter().zip(sent.values()).zip(rest.values()) {
            prop_assert_eq!(sent + rest, *value);
            prop_assert!(*sent == 0.0 || *rest == 0.0);
            prop_assert!(rest.abs() <= smallest);
        }
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
        let report = encode_top_k(encoding, &mut owed).unwrap().decode().unwrap();
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
        let encoded = encode(Encoding::TopK { fraction }, &parameters(&values)).unwrap();
        let mut buffer = BlockBuffer::default();
        match encoded.block(0..values.len(), &mut buffer).unwrap() {
            Block::Sparse { indices, .. } => indices.to_vec(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(entries(0.2), [1, 2]);
    assert_eq!(entries(0.9), [1, 2, 3, 5]);
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
    let decoded = encode(Encoding::F16, &parameters(&values)).unwrap();
    assert_eq!(
        decoded.decode().unwrap().values(),
        values.map(|value| f16::from_f32(value).to_f32())
    );
    let decoded = encode(Encoding::Bf16, &parameters(&values)).unwrap();
    assert_eq!(
        decoded.decode().unwrap().values(),
        values.map(|value| bf16::from_f32(value).to_f32())
    );
}

#[test]
fn values_without_a_form_are_named_errors() {
    let not_finite = |encoding, value| {
        let mut values = vec![1.0; 900];
        values[899] = value;
        match encode(encoding, &parameters(&values)) {
            Err(EncodingError::Malformed(SafetensorsError::NotFinite { name })) => name,
            other => panic!("{encoding}: {other:?}"),
        }
    };
    assert_eq!(not_finite(Encoding::F16, 65520.0), "c");
    for encoding in [Encoding::F16, Encoding::Bf16, Encoding::Int8, SPARSE] {
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert_eq!(not_finite(encoding, value), "c");
        }
    }
}

#[test]
fn a_body_that_is_not_what_the_job_asks_for_is_a_typed_error() {
    let values: Vec<_> = (0..600).map(|value| value as f32 - 300.0).collect();
    let parameters = parameters(&values);
    let layout = parameters.layout();
    let of = |encoding| body(&encode(encoding, &parameters).unwrap());
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
        let name = "c".to_string();
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
        let name = "@scales".to_string();
        assert_eq!(
            error(Encoding::Int8, &bytes),
            SafetensorsError::Scale { name }
        );
    }
    // The first index is past the end, and then the same as the second.
    for index in [600u32, 1] {
        let mut bytes = of(Encoding::TopK { fraction: 1.0 });
        let start = payload(&bytes) + 4 * 599;
        bytes[start..start + 4].copy_from_slice(&index.to_le_bytes());
        let name = "@indices".to_string();
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
    let encoded = encode(Encoding::F32, &parameters).unwrap();
    let mut bytes = body(&encoded);
    let announced = Digest::of(&bytes);
    // Another value that is as good, as far as anybody can see.
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    let mut decoder = BodyDecoder::new(Encoding::F32, Some(parameters.layout().clone()), "delta/");
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

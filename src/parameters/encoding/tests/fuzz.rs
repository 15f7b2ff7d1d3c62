//! Safetensors files and bodies whose bytes were changed: whole, in pieces, and resumed in the middle.

use super::*;
use crate::{
    parameters::{BlockError, HeaderLimits, ModelFile, safetensors::Decoder},
    testing::fuzz::Target,
};

/// What a server would allow of a body of any layout.
const LIMIT: u64 = 1 << 20;
const WORDS: [&str; 20] = [
    "F32",
    "F16",
    "BF16",
    "F64",
    "I64",
    "U32",
    "I8",
    "__metadata__",
    "\"shape\":[",
    "\"data_offsets\":[0,",
    "\"dtype\":\"",
    "}}",
    "{",
    "],",
    "running_mean",
    "num_batches_tracked",
    "@scales",
    "@indices",
    "module.",
    "\u{0}",
];

/// The inputs of these targets begin with a byte that chooses. If it is odd, the length of the header is put right, since hardly any
/// change of a header would otherwise be looked at.
fn body_of(bytes: &[u8]) -> Option<(u8, Vec<u8>)> {
    let (choice, body) = bytes.split_first()?;
    let mut body = body.to_vec();
    if choice & 1 == 1 && body.len() > 8 {
        let end = body
            .windows(2)
            .rposition(|pair| pair == b"}}")
            .map(|at| at + 2);
        let mut end = end.filter(|end| *end > 8).unwrap_or(8);
        while body.get(end) == Some(&b' ') {
            end += 1;
        }
        let length = (end - 8) as u64;
        body[..8].copy_from_slice(&length.to_le_bytes());
    }
    Some((choice >> 1, body))
}

/// Sizes of pieces that differ, all from the bytes themselves.
fn sizes(body: &[u8]) -> impl Iterator<Item = usize> {
    let mut state = crc32fast::hash(body) | 1;
    std::iter::repeat_with(move || {
        state = state.wrapping_mul(747_796_405).wrapping_add(2_891_336_453);
        let largest = [2, 9, 64, 2000][(state >> 30) as usize];
        1 + (state >> 8) as usize % largest
    })
}

fn pieces(body: &[u8]) -> Vec<&[u8]> {
    let mut rest = body;
    let mut found = Vec::new();
    for size in sizes(body) {
        if rest.is_empty() {
            break;
        }
        let (piece, next) = rest.split_at(size.min(rest.len()));
        found.push(piece);
        rest = next;
    }
    found
}

/// A model of any layout, as a server reads it.
fn model(pieces: &[&[u8]]) -> Result<Parameters, SafetensorsError> {
    let mut decoder = Decoder::any().with_limit(LIMIT);
    for piece in pieces {
        decoder.push(piece)?;
    }
    decoder.finish()
}

/// An error's words without its numbers: a body that ends early is known to lack more or fewer bytes.
fn kind<T>(result: &Result<T, impl std::fmt::Display>) -> String {
    match result {
        Ok(_) => "taken".to_string(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn safetensors() {
    let mut target = Target::new("safetensors").words(&WORDS).long(5);
    for choice in [0, 1] {
        for model in [&*mixed(3), &*parameters(&[0.5; 9])] {
            target = target.seed([&[choice], &*safetensors::encode(model)].concat());
        }
        let other = br#"{"w":{"dtype":"F32","shape":[2,1],"data_offsets":[8,16]},"bn.num_batches_tracked":{"dtype":"I64","shape":[],"data_offsets":[0,8]},"__metadata__":{"fedavg.roles":"{}"}}"#;
        let length = (other.len() as u64).to_le_bytes();
        target = target.seed([&[choice], &length[..], other, &[0; 16]].concat());
    }
    target.run(|bytes| {
        let Some((_, body)) = body_of(bytes) else {
            return String::new();
        };
        let whole = model(&[&body]);
        let in_pieces = model(&pieces(&body));
        assert_eq!(whole.is_ok(), in_pieces.is_ok(), "{whole:?} {in_pieces:?}");
        let at_once = safetensors::decode(&body);
        assert_eq!(whole.is_ok(), at_once.is_ok(), "{whole:?} {at_once:?}");
        if let Ok(model) = &whole {
            assert_eq!(Ok(model), in_pieces.as_ref());
            assert!(model.values().iter().all(|value| value.is_finite()));
            // What is read is written as something that reads the same.
            let written = safetensors::encode(model);
            assert_eq!(safetensors::decode(&written).as_ref(), Ok(model));
            let file = ModelFile::parse(&written).unwrap();
            assert_eq!(ModelFile::length(&written), Some(written.len() as u64));
            assert_eq!(&file.into_model().unwrap().model.values(), &model.values());
        }
        let _ = ModelFile::length(&body);
        let read = ModelFile::parse(&body).and_then(ModelFile::into_model);
        if let (Ok(read), Ok(model)) = (&read, &whole) {
            assert_eq!(read.model.values(), model.values());
        }
        format!("{} / {}", kind(&whole), kind(&read))
    });
}

#[test]
fn headers() {
    let target = Target::new("headers").words(&WORDS).long(5);
    let header = parameters(&[0.5; 9]);
    let header = safetensors::header(header.layout(), "delta/");
    target.seed(&header[8..]).run(|bytes| {
        let mut limits = HeaderLimits::default();
        (limits.tensors, limits.name, limits.dimensions) = (20, 40, 6);
        let checked = limits.check(bytes);
        if checked.is_ok() {
            // What passes is no more than it may be, for a parser that keeps all of it.
            let parsed: Result<serde_json::Map<String, serde_json::Value>, _> =
                serde_json::from_slice(bytes);
            for (name, tensor) in parsed.unwrap_or_default() {
                assert!(name.len() <= 40 || name == "__metadata__");
                let shape = tensor.get("shape").and_then(|shape| shape.as_array());
                assert!(shape.is_none_or(|shape| shape.len() <= 6));
            }
        }
        kind(&checked)
    });
}

/// A sink in memory that also keeps the header, as a spool does.
#[derive(Default)]
struct Kept {
    header: Vec<u8>,
    stored: Vec<u8>,
}

impl BodySink for Kept {
    fn header(&mut self, bytes: &[u8]) -> Result<(), BlockError> {
        self.header = bytes.to_vec();
        Ok(())
    }

    fn begin(&mut self, form: &BodyForm) -> Result<(), BlockError> {
        // As a spool does, which has room for no more than it has set aside.
        assert!(form.stored_bytes() <= LIMIT, "{}", form.stored_bytes());
        self.stored.resize(form.stored_bytes() as usize, 0xee);
        Ok(())
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), BlockError> {
        self.stored[offset as usize..][..bytes.len()].copy_from_slice(bytes);
        Ok(())
    }
}

/// The forms of bodies that jobs ask for: each encoding, several payloads of several types, and a whole model.
fn forms(layout: &Arc<Layout>) -> Vec<BodyForm> {
    let mut forms = Vec::new();
    for encoding in DENSE.into_iter().chain([SPARSE]) {
        forms.push(BodyForm::one("delta", form(encoding, layout)));
    }
    let specs = [
        PayloadSpec::model("delta", Roles::TRAINED).with_encoding(SPARSE),
        PayloadSpec::model("masked", Roles::TRAINABLE).with_dtype(DType::U64),
        PayloadSpec::vector("counts", 5, DType::F64),
        PayloadSpec::vector("few", 3, DType::U32),
        PayloadSpec::model("rest", Roles::FROZEN).with_encoding(Encoding::Int8),
        PayloadSpec::model("variate", Roles::TRAINABLE).with_encoding(Encoding::Bf16),
    ];
    forms.push(BodyForm::of(&specs, layout));
    forms.push(BodyForm::one("", Form::file(layout.clone())));
    forms
}

/// A body of a form that reads.
fn body_in(form: &BodyForm, values: &Arc<Parameters>) -> Vec<u8> {
    let mut payloads = Vec::new();
    for part in form.parts() {
        let bytes = part.form.bytes() as usize;
        let encoded = match part.form.dtype() {
            DType::F32 if part.form.is_sparse() => {
                encode_top_k(&part.form, &mut (**values).clone())
            }
            DType::F32 => encode(&part.form, values),
            DType::F64 => Encoded::values(part.form.clone(), Values::F64(vec![0.25; bytes / 8])),
            DType::U32 => Encoded::values(part.form.clone(), Values::U32(vec![7; bytes / 4])),
            DType::U64 => Encoded::values(part.form.clone(), Values::U64(vec![7; bytes / 8])),
        };
        payloads.push((part.name.clone(), encoded.unwrap()));
    }
    Payloads::new(payloads).pieces().concat()
}

/// The same body to a decoder that stops at `at` and to another that goes on from what was stored of it.
fn resumed(form: &Arc<BodyForm>, body: &[u8], at: usize) -> Result<Vec<u8>, EncodingError> {
    let mut kept = Kept::default();
    let mut first = BodyDecoder::new(form.clone());
    first.push(&body[..at], &mut kept)?;
    let mut second = BodyDecoder::new(form.clone());
    let mut from = 0;
    if !kept.header.is_empty() {
        let header = kept.header.clone();
        second.push(&header, &mut kept)?;
        from = header.len();
        while from < at {
            let Some(stored) = second.next_stored() else {
                // A tensor that is passed over: the rest can't be had from what is stored, and the sender begins again.
                break;
            };
            let length = ((stored.end - stored.start) as usize).min(at - from);
            assert!(length > 0);
            let part = kept.stored[stored.start as usize..][..length].to_vec();
            assert_eq!(
                part,
                body[from..from + length],
                "what is stored is what came"
            );
            second.push(&part, &mut kept)?;
            from += length;
        }
    }
    second.push(&body[from..], &mut kept)?;
    assert_eq!(second.digest_so_far(), Digest::of(body));
    second.finish(Some(Digest::of(body)))?;
    Ok(kept.stored)
}

#[test]
fn encodings() {
    let values = mixed(5);
    let forms = forms(values.layout());
    let mut target = Target::new("encodings")
        .words(&WORDS)
        .words(&["delta/", "/@values"])
        .long(5)
        .runs(600);
    for (index, form) in forms.iter().enumerate() {
        for fixes in [0, 1] {
            let choice = 2 * index as u8 + fixes;
            target = target.seed([&[choice], &*body_in(form, &values)].concat());
        }
    }
    target.run(|bytes| {
        let Some((choice, body)) = body_of(bytes) else {
            return String::new();
        };
        let form = Arc::new(forms[usize::from(choice) % forms.len()].clone());
        let whole = take_all((*form).clone(), &body, body.len().max(1));
        let mut decoder = BodyDecoder::new(form.clone());
        let mut kept = Kept::default();
        let mut pushed = Ok(());
        for piece in pieces(&body) {
            if pushed.is_ok() {
                pushed = decoder.push(piece, &mut kept);
            } else {
                // A decoder that has failed stays failed.
                assert!(decoder.push(piece, &mut kept).is_err());
            }
        }
        let in_pieces = pushed.and_then(|()| decoder.finish(None));
        assert_eq!(whole.is_ok(), in_pieces.is_ok(), "{whole:?} {in_pieces:?}");
        let at = crc32fast::hash(&body) as usize % (body.len() + 1);
        let again = resumed(&form, &body, at);
        assert_eq!(whole.is_ok(), again.is_ok(), "{whole:?} {again:?}");
        if let (Ok(payloads), Ok(read), Ok(again)) = (&whole, &in_pieces, &again) {
            assert_eq!(&payloads.form(), read);
            assert_eq!(again, &kept.stored);
            check_payloads(&form, payloads);
        }
        kind(&whole)
    });
}

/// What holds of all payloads that were taken: they are of the form, can be read in any blocks, and are written as what they were
/// read from.
fn check_payloads(form: &BodyForm, payloads: &Payloads) {
    let mut buffer = BlockBuffer::default();
    for ((name, encoded), expected) in payloads.iter().zip(form.parts()) {
        assert_eq!(name, expected.name);
        assert!(encoded.form().bytes() <= expected.form.bytes());
        let length = encoded.layout().len();
        let mut decoded = vec![f32::NAN; length];
        let mut start = 0;
        while start < length {
            let end = encoded.uniform_end(start).min(start + 100).min(length);
            let block = encoded.block(start..end, &mut buffer).unwrap();
            let is_float = !matches!(block, Block::U32(_) | Block::U64(_));
            if is_float {
                block.decode(&mut decoded[start..end]);
            } else {
                decoded[start..end].fill(0.0);
            }
            start = end;
        }
        if expected.form.dtype() == DType::F32 {
            assert!(decoded.iter().all(|value| value.is_finite()), "{name}");
            assert_eq!(encoded.decode().unwrap().values(), decoded);
        }
    }
    let written = payloads.pieces().concat();
    let again = take_all(form.clone(), &written, 4096).unwrap();
    assert_eq!(again.form(), payloads.form());
    assert_eq!(again.pieces(), payloads.pieces());
}

#[test]
fn encoding_names() {
    let target = Target::new("encoding_names").words(&["top_k:", "f32", "int8", "e-"]);
    target.run(|bytes| {
        let text = String::from_utf8_lossy(bytes);
        let read = text.parse::<Encoding>();
        if let Ok(encoding) = &read {
            assert_eq!(&encoding.to_string().parse::<Encoding>().unwrap(), encoding);
        }
        let digest = text.parse::<Digest>();
        if let Ok(digest) = digest {
            assert_eq!(digest.to_string().parse(), Ok(digest));
        }
        format!("{} {}", kind(&read), kind(&digest))
    });
}

//! What it costs to encode a delta and to decode it, for each encoding, beside a plain copy of the same values.
//!
//! `encode` is the worker's side, `take` the coordinator's while a body arrives (layout, finiteness and digest are
//! checked, and the payload goes to memory), `decode` reads the values back block by block. Throughput is in bytes of
//! values as f32, whatever the encoding.

use std::{hint::black_box, sync::Arc, time::Duration};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use fedavg::parameters::{
    BlockBuffer, BlockReader, BodyDecoder, BodyForm, Digest, Encoding, Form, Layout, MemorySink,
    Parameters, Role, Roles, encode,
};

const PARAMETERS: usize = 4_000_000;
const BLOCK: usize = 64 * 1024;

const ENCODINGS: [Encoding; 5] = [
    Encoding::F32,
    Encoding::F16,
    Encoding::Bf16,
    Encoding::Int8,
    Encoding::TopK { fraction: 0.01 },
];

fn codec(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("codec");
    group
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(2));
    let layout = Layout::new([("weight".to_string(), vec![PARAMETERS], Role::Trainable)])
        .expect("one tensor");
    let values: Vec<f32> = (0..PARAMETERS)
        .map(|index| ((index * 7919) % 2003) as f32 / 2003.0 - 0.5)
        .collect();
    let delta = Parameters::new(layout.clone(), values.clone()).expect("as many values");
    let delta = Arc::new(delta);
    group.throughput(Throughput::Bytes(layout.bytes() as u64));
    let mut copy = vec![0f32; PARAMETERS];
    group.bench_function("copy", |bencher| {
        bencher.iter(|| black_box(&mut copy).copy_from_slice(&values));
    });
    for encoding in ENCODINGS {
        let name = encoding.name();
        let form = Form::new(encoding, layout.clone(), Roles::TRAINED);
        let expected = Arc::new(BodyForm::one("delta", form.clone()));
        group.bench_function(BenchmarkId::new("encode", name), |bencher| {
            bencher.iter(|| encode(&form, &delta).expect("finite values"));
        });
        let encoded = encode(&form, &delta).expect("finite values");
        let body = encoded.pieces("delta/").concat();
        let digest = Digest::of(&body);
        group.bench_function(BenchmarkId::new("take", name), |bencher| {
            bencher.iter(|| {
                let mut decoder = BodyDecoder::new(expected.clone());
                let mut sink = MemorySink::default();
                for piece in body.chunks(BLOCK) {
                    decoder.push(piece, &mut sink).expect("a good body");
                }
                sink.finish(decoder.finish(Some(digest)).expect("a whole body"))
            });
        });
        let mut buffer = BlockBuffer::default();
        group.bench_function(BenchmarkId::new("decode", name), |bencher| {
            bencher.iter(|| {
                for start in (0..PARAMETERS).step_by(BLOCK) {
                    let range = start..PARAMETERS.min(start + BLOCK);
                    let block = encoded.block(range.clone(), &mut buffer).expect("memory");
                    block.decode(&mut copy[range]);
                }
            });
        });
    }
    group.finish();
}

criterion_group!(benches, codec);
criterion_main!(benches);

//! Every operator on a GPU beside the processor: outputs, gradients and what is observed.
//!
//! On a machine with a GPU the checks run on it. Everywhere else they run on the emulation of the
//! driver (`kernels/tests/emulation`), in a process of their own, since the loader looks for
//! the libraries where the environment said when the process began.

use std::{collections::BTreeMap, process::Command};

use kernels::{
    cuda::{self, Device, Gpu},
    random,
};
use ops::{
    Add, Combine, Context, CrossEntropy, DType, Dispatch, Embedding, Floats, GroupedLinear, Init,
    Linear, MlaAttention, Observed, Operator, Place, RmsNorm, Router, Split, Stored, SwiGlu,
    Tensor, Weigh, Yarn,
    optim::{MuonClip, Optimizer, PlainAdamW, Rows, qk_clip},
};

#[path = "../../kernels/tests/emulation/mod.rs"]
mod emulation;

#[path = "on_gpu/company.rs"]
mod company;

use emulation::{Emulation, PLAIN};

/// Set in the process that is to check.
const INSIDE: &str = "TROUPE_CHECKS_OPERATORS";

/// Bytes of the arena.
const ARENA: u64 = 160 << 20;

fn main() {
    if std::env::var_os(INSIDE).is_some() || cuda::probe().is_ok() {
        return inside();
    }
    let Some(emulation) = Emulation::new(PLAIN) else { return };
    let mut command = Command::new(std::env::current_exe().unwrap());
    emulation.settle(&mut command);
    let status = command.env(INSIDE, "1").status().unwrap();
    assert!(status.success(), "the checks on the emulation failed: {status}");
}

fn inside() {
    let device = Device::open(0, cuda::Compiler::usual_folder().as_deref()).unwrap();
    println!("{}", device.found().name);
    let gpu = Gpu::new(&device, ARENA).unwrap();
    // What is not written must not look like a number.
    let mut all = gpu.buffer::<u8>((ARENA / 2) as usize).unwrap();
    gpu.stream().fill(all.view_mut(), 0xFF).unwrap();
    drop(all);
    let seed = std::process::id().into();
    println!("seed {seed}");
    let mut bed = Bed { place: Place::Gpu(gpu), seed, tensors: 0, checked: 0 };
    operators(&mut bed);
    updates(&mut bed);
    company::all(&mut bed);
    storage(&mut bed);
    sums(&mut bed);
    println!("{} comparisons", bed.checked);
}

/// A GPU and random inputs.
struct Bed {
    place: Place,
    seed: u64,
    tensors: u64,
    checked: usize,
}

impl Bed {
    fn random(&mut self, shape: &[usize]) -> Tensor {
        self.tensors += 1;
        let mut values = vec![0.0; shape.iter().product()];
        random::fill_normal(&mut values, random::key(self.seed, "on_gpu"), self.tensors << 24, 1.0);
        Tensor::from_f32(shape, values)
    }

    fn floats(&mut self, len: usize) -> Vec<f32> {
        self.random(&[len]).f32().into_owned()
    }

    /// Says so if `|got - truth|` is more than its share of `|truth|`, both as vectors.
    #[track_caller]
    fn close(&mut self, name: &str, got: &Tensor, truth: &Tensor, tolerance: f32) {
        let got = got.at(&Place::Host);
        assert_eq!(got.shape(), truth.shape(), "{name}");
        self.checked += 1;
        if truth.dtype() == DType::I32 {
            return assert_eq!(got.i32(), truth.i32(), "{name}");
        }
        let norm = |x: &mut dyn Iterator<Item = f32>| x.map(|x| x * x).sum::<f32>().sqrt();
        let (got, truth) = (got.f32(), truth.f32());
        let apart = norm(&mut got.iter().zip(truth.iter()).map(|(a, b)| a - b));
        let size = norm(&mut truth.iter().copied());
        assert!(apart <= tolerance * (size + 1e-3), "{name}: {apart} apart of {size}");
    }
}

/// All operators with inputs of a few tokens; each in F32 and in BF16.
fn operators(bed: &mut Bed) {
    let (t, d, e, k) = (6, 16, 5, 2);
    let x = bed.random(&[t, d]);
    let choice = Tensor::from_i32(&[t, k], vec![2, 0, 0, 3, 3, 2, 2, 3, 4, 0, 2, 4]);
    let share = bed.random(&[t, k]);
    let rows = bed.random(&[t * k, d]);
    let counts = Tensor::from_i32(&[e], vec![3, 0, 4, 3, 2]);
    let row_share = bed.random(&[t * k, 1]);
    let tokens = Tensor::from_i32(&[t], vec![3, 0, 3, 10, 1, 3]);
    let targets = Tensor::from_i32(&[t], vec![3, 10, 0, -1, 4, 2]);
    let other = bed.random(&[t, d]);
    let yarn = Yarn { factor: 4.0, ..yarn() };
    let attention =
        MlaAttention { heads: 2, nope: 8, rope: 4, value: 8, rope_theta: 1e4, yarn: None };
    let stretched = MlaAttention { yarn: Some(yarn), ..attention.clone() };
    let qkv = [bed.random(&[t, 24]), bed.random(&[t, 32]), bed.random(&[t, 4])];
    let whole = CrossEntropy { width: d, vocab: 11, chunk: 16, init_std: 1.0 };
    let chunked = CrossEntropy { chunk: 4, ..whole.clone() };
    let router = Router {
        width: d,
        experts: e,
        experts_per_token: k,
        groups: 1,
        groups_per_token: 1,
        scaling: 2.5,
        init_std: 1.0,
    };
    let (width, experts, experts_per_token) = (d, e, k);
    let cases: [(&dyn Operator, Vec<&Tensor>); 15] = [
        (&Embedding { vocab: 11, width, init_std: 1.0 }, vec![&tokens]),
        (&RmsNorm { width, eps: 1e-6 }, vec![&x]),
        (&Linear { input: d, output: 12, init_std: 1.0 }, vec![&x]),
        (&Split { widths: vec![3, 8, 5] }, vec![&x]),
        (&attention, qkv.iter().collect()),
        (&stretched, qkv.iter().collect()),
        (&SwiGlu { width }, vec![&x, &other]),
        (&router, vec![&x]),
        (&Dispatch { width, experts, experts_per_token }, vec![&x, &choice, &share]),
        (&GroupedLinear { experts, input: d, output: 7, init_std: 1.0 }, vec![&rows, &counts]),
        (&Weigh { width }, vec![&rows, &row_share]),
        (&Combine { width, experts, experts_per_token }, vec![&rows, &choice]),
        (&Add { width }, vec![&x, &other, &x]),
        (&whole, vec![&x, &targets]),
        (&chunked, vec![&x, &targets]),
    ];
    for (op, inputs) in cases {
        let inputs: Vec<Tensor> = inputs.into_iter().cloned().collect();
        for dtype in [DType::F32, DType::Bf16] {
            operator(bed, op, &inputs, dtype);
        }
    }
}

fn yarn() -> Yarn {
    Yarn {
        factor: 4.0,
        original: 16,
        beta_fast: 32.0,
        beta_slow: 1.0,
        mscale: 1.0,
        mscale_all_dim: 1.0,
    }
}

/// What a call of all three parts makes, by name.
type Made = BTreeMap<String, Tensor>;

fn operator(bed: &mut Bed, op: &dyn Operator, x: &[Tensor], dtype: DType) {
    let weights: Vec<Tensor> = op
        .weights()
        .iter()
        .map(|spec| {
            let offset = if spec.init == Init::Ones { 1.0 } else { 0.0 };
            let mut values = bed.floats(spec.shape.iter().product());
            values.iter_mut().for_each(|x| *x += offset);
            let w = Tensor::from_f32(&spec.shape, values);
            if spec.exact { w } else { rounded(&w, dtype) }
        })
        .collect();
    // Exact inputs, shares that is, stand behind a choice or beside rows of their own width.
    let x: Vec<Tensor> =
        x.iter().map(|x| if is_exact(x) { x.clone() } else { rounded(x, dtype) }).collect();
    let outputs = op.forward(&context(dtype), &weights, &x).outputs;
    let dy: Vec<Tensor> = outputs
        .iter()
        .map(|y| match y.dtype() {
            DType::I32 => y.clone(),
            own => rounded(&bed.random(y.shape()), own),
        })
        .collect();
    let truth = made(op, &Place::Host, dtype, &weights, &x, &dy);
    let got = made(op, &bed.place.clone(), dtype, &weights, &x, &dy);
    let tolerance = if dtype == DType::F32 { 1e-5 } else { 1e-2 };
    let kind = std::any::type_name_of_val(op);
    assert_eq!(truth.keys().collect::<Vec<_>>(), got.keys().collect::<Vec<_>>());
    for (name, truth) in &truth {
        bed.close(&format!("{kind} {dtype:?} {name} of {x:?}"), &got[name], truth, tolerance);
    }
}

fn context(dtype: DType) -> Context {
    Context { sequence: 3, dtype, loss_scale: 0.25 }
}

fn is_exact(x: &Tensor) -> bool {
    x.dtype() == DType::I32 || x.shape()[1] <= 2
}

fn rounded(x: &Tensor, dtype: DType) -> Tensor {
    Tensor::rounded(x.shape(), x.f32().into_owned(), dtype)
}

/// Runs all three parts in a place.
fn made(
    op: &dyn Operator,
    place: &Place,
    dtype: DType,
    w: &[Tensor],
    x: &[Tensor],
    dy: &[Tensor],
) -> Made {
    let at = context(dtype);
    let here = |all: &[Tensor]| all.iter().map(|one| one.at(place)).collect::<Vec<_>>();
    // Counts of rows are the host's wherever the rows are.
    let is_counts = |x: &Tensor| x.dtype() == DType::I32 && x.shape() == [5];
    let x: Vec<Tensor> =
        x.iter().map(|x| if is_counts(x) { x.clone() } else { x.at(place) }).collect();
    let (w, dy) = (here(w), here(dy));
    let forward = op.forward(&at, &w, &x);
    let mut made = Made::new();
    for (i, y) in forward.outputs.iter().enumerate() {
        made.insert(format!("output {i}"), y.clone());
    }
    for (i, dx) in op.backward_input(&at, &w, &forward.saved.input, &dy).into_iter().enumerate() {
        dx.into_iter().for_each(|dx| drop(made.insert(format!("input {i}"), dx)));
    }
    let mut dw: Vec<Floats> = w.iter().map(|w| Floats::with_capacity(place, w.len())).collect();
    for round in ["begun", "added"] {
        op.backward_weight(&at, &w, &forward.saved.weight, &dy, &mut dw);
        for (i, (dw, w)) in dw.iter_mut().zip(&w).enumerate() {
            // An idle expert's buffer may be empty, as a bias's is.
            let mut all = dw.clone();
            all.fill_up(w.len());
            made.insert(
                format!("weight {i}, {round}"),
                Tensor::from_f32(&[w.len()], all.to_host()),
            );
        }
    }
    let observed = match forward.observed.map(Observed::known) {
        Some(Observed::MaxLogits(logits)) => logits,
        Some(Observed::Load(load)) => load.into_iter().map(|tokens| tokens as f32).collect(),
        Some(Observed::Loss { sum, tokens }) => vec![sum as f32, tokens as f32],
        Some(Observed::Waiting(_)) => unreachable!("known"),
        None => Vec::new(),
    };
    made.insert("observed".into(), Tensor::from_f32(&[observed.len()], observed));
    made
}

/// Both optimizers over three steps, momentum, Newton-Schulz and QK-Clip among them.
fn updates(bed: &mut Bed) {
    let plain = Optimizer::AdamW(PlainAdamW::default());
    let muons = [true, false]
        .map(|nesterov| Optimizer::MuonClip(MuonClip { nesterov, ..MuonClip::default() }));
    for (optimizer, dtype) in [
        (&plain, DType::F32),
        (&muons[0], DType::F32),
        (&muons[1], DType::F32),
        (&muons[0], DType::Bf16),
    ] {
        for shape in [[6, 10], [10, 6]] {
            let first = bed.floats(60);
            let gradients: Vec<Vec<f32>> = (0..3).map(|_| bed.floats(60)).collect();
            let [truth, got] = [Place::Host, bed.place.clone()].map(|place| {
                let mut master = Floats::at(&place, first.clone());
                let mut state = optimizer.state(ops::Rule::Muon, &shape).at(&place);
                for gradient in &gradients {
                    let gradient = Floats::at(&place, gradient.clone());
                    let rule = ops::Rule::Muon;
                    optimizer.update(rule, &shape, dtype, 0.1, &gradient, &mut master, &mut state);
                }
                let gamma = qk_clip(9.0, 3.0).unwrap();
                let attention = MlaAttention {
                    heads: 1,
                    nope: 3,
                    rope: 2,
                    value: 1,
                    rope_theta: 1e4,
                    yarn: None,
                };
                let mut rows = Rows { first: 1, columns: shape[1], values: &mut master };
                gamma.clip_query(&attention, 0, &mut rows);
                let state = state.at(&Place::Host);
                let mut all = master.to_host();
                state.buffers().iter().for_each(|(_, values)| all.extend_from_slice(values));
                (
                    Floats::nearest(&[&master], &shape, dtype).remove(0),
                    Tensor::from_f32(&[all.len()], all),
                )
            });
            let tolerance = if dtype == DType::F32 { 2e-4 } else { 2e-2 };
            bed.close("value after updates", &got.0, &truth.0, tolerance);
            bed.close("master and state after updates", &got.1, &truth.1, tolerance);
        }
    }
}

/// FP8, and the way to the host and back, keep every bit.
fn storage(bed: &mut Bed) {
    let Place::Gpu(gpu) = bed.place.clone() else { return };
    for dtype in [DType::F32, DType::Bf16] {
        for shape in [[5, 256], [3, 200], [2, 1]] {
            let x = rounded(&bed.random(&shape), dtype);
            let truth = Stored::encode(&x).decode();
            let stored = Stored::encode(&x.at(&bed.place));
            bed.close("FP8", &stored.decode(), &truth, 0.0);
            let after = gpu.event().unwrap();
            let back = stored.parked(Some(&after)).fetched();
            bed.close("FP8 from the host", &back.decode(), &truth, 0.0);
            // The copy must not begin before the tensor is there.
            let here = x.at(&bed.place);
            let after = gpu.event().unwrap();
            let parked = here.parked(Some(&after));
            bed.close("a copy on the host", &parked, &x, 0.0);
            bed.close("and back", &parked.fetched(), &x, 0.0);
        }
    }
}

/// Sums and pieces.
fn sums(bed: &mut Bed) {
    let (a, b) = (bed.floats(40), bed.floats(40));
    let [truth, got] = [Place::Host, bed.place.clone()].map(|place| {
        let mut sum = Floats::at(&place, a.clone());
        sum.add(&Floats::at(&place, b.clone()));
        sum.scale(3..30, 0.5);
        let squares = Floats::squares(&[&sum], 8).known();
        let joined = Floats::joined([sum.part(30..40), sum.part(0..7)]);
        assert_eq!(joined, Floats::from([&sum.to_host()[30..40], &sum.to_host()[..7]].concat()));
        (squares, sum.to_host())
    });
    assert_eq!(got, truth, "bit for bit");
    let pieces = [bed.random(&[1, 8]), Tensor::from_f32(&[0, 8], vec![]), bed.random(&[4, 8])];
    let truth = Tensor::concatenated(&pieces);
    let pieces = pieces.map(|piece| piece.at(&bed.place));
    bed.close("pieces", &Tensor::concatenated(&pieces), &truth, 0.0);
    let plus = pieces[2].plus(&pieces[2].rows(0..4));
    let host = pieces[2].at(&Place::Host);
    bed.close("a sum", &plus, &host.plus(&host), 0.0);
}

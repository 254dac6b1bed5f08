//! The kernels, with what each of them computes and moves.

use std::hint::black_box;

use half::bf16;
use kernels::{
    adamw,
    attention::{self, Cache, Gradients, Heads, Inputs, Scratch},
    cross_entropy::{LogSums, gradient},
    gemm::{Matrix, MatrixMut, Output, Packed, multiply, product},
    newton_schulz::newton_schulz,
    number::Number,
    reduce, rms_norm,
    rope::Rotation,
    router::{self, Choice},
    swiglu,
};

use crate::{Case, random};

/// Tokens of a microbatch, and of a sequence.
const TOKENS: usize = 1024;
const SEQUENCE: usize = 256;

/// Width of a token, and of an expert.
const HIDDEN: usize = 256;
const EXPERT: usize = 128;

/// Elements of a tensor that stays in the second cache.
const ELEMENTS: usize = 256 * HIDDEN;

pub(crate) fn all() -> Vec<Case> {
    let mut all = Vec::new();
    all.extend(products::<f32>("F32"));
    all.extend(products::<bf16>("BF16"));
    all.extend(writing::<bf16>("BF16"));
    all.extend(elementwise::<f32>("F32"));
    all.extend(elementwise::<bf16>("BF16"));
    all.extend(attentions::<f32>("F32"));
    all.extend(attentions::<bf16>("BF16"));
    all.extend(updates());
    all.extend([choices(16, 4), choices(384, 8), mixing()]);
    all
}

fn case<N: Number>(
    name: &str,
    format: &str,
    flops: usize,
    bytes: usize,
    run: impl FnMut() + 'static,
) -> Case {
    let name = format!("{name}, {format}").leak();
    let is_bf16 = size_of::<N>() == size_of::<bf16>();
    Case { name, flops: flops as f64, bytes: bytes as f64, is_bf16, run: Box::new(run) }
}

/// The three products of a linear map, the head's gradient, and an expert's in generation.
fn products<N: Number>(format: &str) -> Vec<Case> {
    let mut all = Vec::new();
    for (name, t, i, o) in [
        ("linear", TOKENS, HIDDEN, 768),
        ("expert", TOKENS / 4, HIDDEN, EXPERT),
        ("expert of 8 rows", 8, HIDDEN, EXPERT),
    ] {
        let (flops, bytes) = (2 * t * i * o, size_of::<N>() * (t * i + o * i + t * o));
        let (x, w, dy) = (random::<N>(t * i), random::<N>(o * i), random::<N>(t * o));
        let (own, weight) = (x.clone(), w.clone());
        all.push(case::<N>(&format!("{name}: y = x w^T"), format, flops, bytes, move || {
            let (x, w) = (matrix(&own, t, i), matrix(&weight, o, i));
            drop(black_box(multiply::<N>(x, w.transposed())));
        }));
        let own = dy.clone();
        all.push(case::<N>(&format!("{name}: dx = dy w"), format, flops, bytes, move || {
            drop(black_box(multiply::<N>(matrix(&own, t, o), matrix(&w, o, i))));
        }));
        let mut dw = vec![0.0_f32; o * i];
        all.push(case::<N>(&format!("{name}: dw += dy^T x"), format, flops, bytes, move || {
            let to = MatrixMut::new(&mut dw, o, i);
            product(to, Output::Add, 1.0, matrix(&dy, t, o).transposed(), matrix(&x, t, i));
        }));
    }
    all
}

/// A token of some texts: packed weights that no second cache holds, and few rows.
fn writing<N: Number>(format: &str) -> Vec<Case> {
    let mut all = Vec::new();
    for (name, experts, rows, i, o) in [
        ("128 packed experts of 8 rows", 128, 8, HIDDEN, EXPERT),
        ("packed head, 32 rows", 1, 32, HIDDEN, 4096),
    ] {
        let x = random::<N>(rows * i);
        let packed: Vec<Packed> = (0..experts)
            .map(|_| Packed::new(matrix(&random::<N>(o * i), o, i).transposed()))
            .collect();
        let flops = 2 * experts * rows * i * o;
        let bytes = size_of::<N>() * experts * i * o;
        let mut y = vec![0.0_f32; rows * o];
        all.push(case::<N>(name, format, flops, bytes, move || {
            for w in &packed {
                let y = MatrixMut::new(&mut y, rows, o);
                product(y, Output::Write, 1.0, matrix(&x, rows, i), w);
            }
        }));
    }
    let (experts, rows, i, o) = (64, 32, 512, 256);
    let all_w: Vec<Vec<N>> = (0..experts).map(|_| random::<N>(i * o)).collect();
    let (x, dy) = (random::<N>(rows * i), random::<N>(rows * o));
    let (flops, bytes) = (2 * experts * rows * i * o, size_of::<N>() * experts * i * o);
    let own = all_w.clone();
    all.push(case::<N>("64 experts of 32 rows: y = x w^T", format, flops, bytes, move || {
        for w in &own {
            drop(black_box(multiply::<N>(matrix(&x, rows, i), matrix(w, o, i).transposed())));
        }
    }));
    all.push(case::<N>("64 experts of 32 rows: dx = dy w", format, flops, bytes, move || {
        for w in &all_w {
            drop(black_box(multiply::<N>(matrix(&dy, rows, o), matrix(w, o, i))));
        }
    }));
    all
}

fn matrix<N: Number>(values: &[N], rows: usize, cols: usize) -> Matrix<'_> {
    Matrix::of(N::values(values), rows, cols, cols)
}

fn elementwise<N: Number>(format: &str) -> Vec<Case> {
    let size = size_of::<N>() * ELEMENTS;
    let (a, b, c) = (random::<N>(ELEMENTS), random::<N>(ELEMENTS), random::<N>(ELEMENTS));
    let mut all = Vec::new();
    let (gate, up) = (a.clone(), b.clone());
    all.push(case::<N>("swiglu forward", format, 0, 3 * size, move || {
        drop(black_box(swiglu::forward(&gate, &up)));
    }));
    let (gate, up, dy) = (a.clone(), b.clone(), c);
    all.push(case::<N>("swiglu backward", format, 0, 5 * size, move || {
        drop(black_box(swiglu::backward(&gate, &up, &dy)));
    }));
    let (x, w, mut y) = (a.clone(), random::<f32>(HIDDEN), a.clone());
    let mut rstd = vec![0.0; ELEMENTS / HIDDEN];
    let (gain, divisors) = (w.clone(), rstd.clone());
    all.push(case::<N>("rms_norm forward", format, 0, 2 * size, move || {
        rms_norm::forward(&x, &w, 1e-6, black_box(&mut y), &mut rstd);
    }));
    let (x, dy, mut dx, rstd) = (a.clone(), b.clone(), a.clone(), divisors.clone());
    all.push(case::<N>("rms_norm backward, input", format, 0, 3 * size, move || {
        rms_norm::backward_input(&x, &gain, &rstd, &dy, black_box(&mut dx));
    }));
    let (x, dy, mut dw) = (a.clone(), b.clone(), vec![0.0; HIDDEN]);
    all.push(case::<N>("rms_norm backward, weight", format, 0, 2 * size, move || {
        rms_norm::backward_weight(&x, &divisors, &dy, black_box(&mut dw));
    }));
    let (logits, cols) = (random::<f32>(ELEMENTS), 512);
    let (tokens, targets) = (ELEMENTS / cols, vec![7; ELEMENTS / cols]);
    let (own, mut dlogits) = (logits.clone(), a.clone());
    all.push(case::<N>("cross entropy: log sums", format, 0, 4 * ELEMENTS, move || {
        let mut sums = LogSums::new(tokens);
        sums.extend(0..tokens, &own, cols);
        black_box(sums.finish());
    }));
    all.push(case::<N>("cross entropy: gradient", format, 0, 4 * ELEMENTS + size, move || {
        let log_sums = vec![7.0; tokens];
        let to = black_box(&mut dlogits);
        gradient(&logits, cols, 0, &log_sums, &targets, 1.0, to);
    }));
    let (mut y, wide) = (a, random::<f32>(ELEMENTS));
    all.push(case::<N>("rounding", format, 0, 4 * ELEMENTS + size, move || {
        reduce::scaled(&wide, 1.0, black_box(&mut y));
    }));
    all
}

/// Half of the scores count: the operations of a causal attention.
fn attentions<N: Number>(format: &str) -> Vec<Case> {
    let heads = Heads { heads: 4, nope: 32, rope: 16, value: 32, scale: 0.2 };
    let (q, kv) = (heads.heads * (heads.nope + heads.rope), heads.heads * (heads.nope + 32));
    let (q, kv) = (random::<N>(TOKENS * q), random::<N>(TOKENS * kv));
    let (k_rope, dy) = (random::<N>(TOKENS * heads.rope), random::<N>(TOKENS * 4 * 32));
    let rotation = Rotation::new(&[0.1; 8], 1.0, 0, SEQUENCE);
    let scores = heads.heads * TOKENS * SEQUENCE / 2;
    let bytes = size_of::<N>() * (q.len() + kv.len() + k_rope.len() + dy.len());
    let (mut y, mut log_sums) = (dy.clone(), vec![0.0; TOKENS * heads.heads]);
    let mut largest = vec![0.0; heads.heads];
    let x = Inputs { q: &q, kv: &kv, k_rope: &k_rope };
    attention::forward(&heads, &rotation, SEQUENCE, x, &mut y, &mut log_sums, &mut largest);
    let (own_q, own_kv, own_k, turns) = (q.clone(), kv.clone(), k_rope.clone(), rotation.clone());
    let mut sums = log_sums.clone();
    let forward = move || {
        let x = Inputs { q: &own_q, kv: &own_kv, k_rope: &own_k };
        attention::forward(&heads, &turns, SEQUENCE, x, &mut y, &mut sums, &mut largest);
    };
    let (mut dq, mut dkv, mut dk_rope) = (q.clone(), kv.clone(), k_rope.clone());
    let backward = move || {
        let x = Inputs { q: &q, kv: &kv, k_rope: &k_rope };
        let dx = Gradients { q: &mut dq, kv: &mut dkv, k_rope: &mut dk_rope };
        attention::backward(&heads, &rotation, SEQUENCE, x, &log_sums, &dy, dx);
    };
    let (forward_flops, backward_flops) = (2 * scores * (48 + 32), 2 * scores * (3 * 48 + 2 * 32));
    vec![
        case::<N>("attention forward", format, forward_flops, bytes, forward),
        case::<N>("attention backward", format, backward_flops, 2 * bytes, backward),
    ]
}

/// Half of each Gram matrix and of its square count.
fn updates() -> Vec<Case> {
    let mut all = Vec::new();
    for (rows, cols) in [(128, 256), (256, 128), (256, 256)] {
        let (g, n, m) = (random::<f32>(rows * cols), rows.min(cols), rows.max(cols));
        let flops = 5 * (n * n * m + n * n * n + 2 * n * n * m);
        let name = format!("Newton-Schulz of [{rows}, {cols}]");
        let own = g.clone();
        all.push(case::<f32>(&name, "F32", flops, 8 * g.len(), move || {
            drop(black_box(newton_schulz::<f32>(&own, rows, cols, 5)));
        }));
        all.push(case::<bf16>(&name, "BF16", flops, 8 * g.len(), move || {
            drop(black_box(newton_schulz::<bf16>(&g, rows, cols, 5)));
        }));
    }
    let betas = (0.9, 0.95);
    let how = adamw::Update { lr: 1e-3, betas, eps: 1e-8, weight_decay: 0.1, step: 3, scale: 1.0 };
    let g = random::<f32>(ELEMENTS / 4);
    let (mut m, mut v, mut w) = (g.clone(), vec![1.0; g.len()], g.clone());
    all.push(case::<f32>("AdamW", "F32", 0, 7 * 4 * g.len(), move || {
        adamw::update(&how, &g, &mut m, &mut v, black_box(&mut w));
    }));
    all
}

/// The router of so many experts, without its product.
fn choices(experts: usize, per_token: usize) -> Case {
    let how = Choice { experts, per_token, groups: 1, groups_per_token: 1 };
    let (logits, bias) = (random::<f32>(SEQUENCE * experts), vec![0.0; experts]);
    let mut chosen = vec![0; SEQUENCE * per_token];
    let bytes = 8 * logits.len() + 4 * chosen.len();
    let name = format!("router: {per_token} of {experts}");
    let mut scores = logits.clone();
    case::<f32>(&name, "F32", 0, bytes, move || {
        scores.copy_from_slice(&logits);
        router::scores(&mut scores);
        router::choose(&how, &scores, &bias, black_box(&mut chosen));
    })
}

/// A token's attention over the latents of its text.
fn mixing() -> Case {
    let (heads, rank, rope, seen) = (4, 64, 16, 64);
    let (latents, q) = (random::<f32>(seen * (rank + rope)), random::<f32>(heads * (rank + rope)));
    let mut cache = Cache::default();
    latents.chunks(rank + rope).for_each(|row| cache.push(&row[..rank], &row[rank..]));
    let (mut scratch, mut mixed) = (Scratch::default(), vec![0.0; heads * rank]);
    let flops = 2 * heads * seen * (rank + rope + rank);
    case::<f32>("attention of a token over 64", "F32", flops, 4 * latents.len(), move || {
        cache.mix(&q, 0.1, &mut scratch, black_box(&mut mixed));
    })
}

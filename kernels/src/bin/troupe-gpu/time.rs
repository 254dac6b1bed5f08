//! Times every kernel against its floor: the bytes it must move at the rate of a large copy, or the
//! products it must compute at the rate of a large one.

mod grouped;

use half::bf16;
use kernels::{
    adamw::Update,
    attention::Heads,
    cuda::{
        Arena, Buffer, Device, DeviceError, Element, Stream, attention, cross_entropy, elementwise,
        embedding, fp8, newton_schulz, permute,
        products::{Matrix, MatrixMut, Products},
        reduce, rms_norm, router, squares,
    },
    gemm::Output,
    random,
    rope::Rotation,
    router::Choice,
};

/// Times that a kernel is run after a first one that is not counted.
const RUNS: usize = 30;

/// Extents of what is timed.
#[derive(Clone, Copy)]
pub struct Extents {
    tokens: usize,
    width: usize,
    experts: usize,
    per_token: usize,
    vocab: usize,
    /// Bytes of the copy, and rows of the square product, that say what the device can do.
    copied: usize,
    square: usize,
    /// Heads of attention.
    heads: usize,
    /// Experts of one rank, and the width within them.
    own_experts: usize,
    inner: usize,
}

/// Kimi K2's: 4,096 tokens, an eighth of the vocabulary, 16 heads, an eighth of the experts, which
/// get as many rows as the tokens choose.
pub const K2: Extents = Extents {
    tokens: 4096,
    width: 7168,
    experts: 384,
    per_token: 8,
    vocab: 20_480,
    copied: 256 << 20,
    square: 8192,
    heads: 16,
    own_experts: 48,
    inner: 2048,
};

/// So small that the emulation of the driver gets through, too, which shows that this runs and
/// nothing else.
pub const SMALL: Extents = Extents {
    tokens: 16,
    width: 64,
    experts: 16,
    per_token: 2,
    vocab: 40,
    copied: 4096,
    square: 16,
    heads: 1,
    own_experts: 3,
    inner: 32,
};

struct Clock {
    at: Extents,
    stream: Stream,
    arena: Arena,
    products: Products,
    /// Bytes a microsecond of a copy, reading and writing.
    bytes_per_us: f64,
    /// Operations a microsecond of a product of BF16.
    flops_per_us: f64,
}

pub fn all(device: &Device, at: Extents) -> Result<(), DeviceError> {
    let stream = Stream::new(device)?;
    let arena = Arena::new(device, device.memory()?.0 / 2)?;
    let products = Products::new(&stream, &arena)?;
    let mut clock = Clock { at, stream, arena, products, bytes_per_us: 1.0, flops_per_us: 1.0 };
    clock.ceilings()?;
    println!("{:<28} {:>10} {:>10} {:>7}", "kernel", "us", "floor us", "floor");
    clock.elementwise()?;
    clock.rows()?;
    clock.routing()?;
    clock.loss()?;
    clock.attention()?;
    clock.grouped()
}

impl Clock {
    /// Normal numbers; zeros would be quicker than what comes in training.
    fn normal<T: Element>(&self, len: usize, of: fn(f32) -> T) -> Result<Buffer<T>, DeviceError> {
        // A tensor is a small one over and over, so that the host is not what takes the time.
        let small: Vec<T> = (0..65_537).map(|i| of(random::normal(7, i))).collect();
        let values: Vec<T> = small.iter().copied().cycle().take(len).collect();
        let mut buffer = self.arena.buffer(len)?;
        self.stream.upload(&values, buffer.view_mut())?;
        Ok(buffer)
    }

    fn bf16(&self, len: usize) -> Result<Buffer<bf16>, DeviceError> {
        self.normal(len, bf16::from_f32)
    }

    fn f32(&self, len: usize) -> Result<Buffer<f32>, DeviceError> {
        self.normal(len, |x| x)
    }

    /// The median of all runs, in microseconds.
    fn us(&self, mut work: impl FnMut() -> Result<(), DeviceError>) -> Result<f64, DeviceError> {
        work()?;
        let mut all = Vec::new();
        for _ in 0..RUNS {
            let start = self.stream.event()?;
            work()?;
            let end = self.stream.event()?;
            end.wait()?;
            all.push(f64::from(start.us_to(&end)?));
        }
        all.sort_by(f64::total_cmp);
        Ok(all[RUNS / 2])
    }

    fn ceilings(&mut self) -> Result<(), DeviceError> {
        let len = self.at.copied;
        let (x, mut y) = (self.arena.buffer::<u8>(len)?, self.arena.buffer::<u8>(len)?);
        let us = self.us(|| self.stream.copy(x.view(), y.view_mut()))?;
        self.bytes_per_us = 2.0 * len as f64 / us;
        drop((x, y));
        let n = self.at.square;
        let (a, b, mut c) = (self.bf16(n * n)?, self.bf16(n * n)?, self.bf16(n * n)?);
        let us = self.us(|| {
            let (a, b) = (Matrix::new(a.view(), n, n), Matrix::new(b.view(), n, n).transposed());
            self.products.product(MatrixMut::new(c.view_mut(), n, n), Output::Write, 1.0, a, b)
        })?;
        self.flops_per_us = 2.0 * (n as f64).powi(3) / us;
        let (bytes, flops) = (self.bytes_per_us, self.flops_per_us);
        println!("copy {:.0} GB/s, product of BF16 {:.0} TFLOP/s", bytes / 1e3, flops / 1e6);
        Ok(())
    }

    /// A line for a kernel that moves so many bytes and computes so much in products.
    fn line(
        &self,
        name: &str,
        bytes: usize,
        flops: f64,
        work: impl FnMut() -> Result<(), DeviceError>,
    ) -> Result<(), DeviceError> {
        let us = self.us(work)?;
        let floor = (bytes as f64 / self.bytes_per_us).max(flops / self.flops_per_us);
        println!("{name:<28} {us:>10.1} {floor:>10.1} {:>6.0}%", 100.0 * floor / us);
        Ok(())
    }

    fn elementwise(&self) -> Result<(), DeviceError> {
        let (s, n) = (&self.stream, self.at.tokens * self.at.width);
        let (a, b, c) = (self.bf16(n)?, self.bf16(n)?, self.bf16(n)?);
        let (mut d, mut e) = (self.bf16(n)?, self.bf16(n)?);
        let (mut w, mut m, mut v) = (self.f32(n)?, self.f32(n)?, self.f32(n)?);
        let g = self.f32(n)?;
        self.line("swiglu forward", 6 * n, 0.0, || {
            elementwise::swiglu_forward(s, a.view(), b.view(), d.view_mut())
        })?;
        self.line("swiglu backward", 10 * n, 0.0, || {
            let (to_gate, to_up) = (d.view_mut(), e.view_mut());
            elementwise::swiglu_backward(s, a.view(), b.view(), c.view(), to_gate, to_up)
        })?;
        self.line("sums of three", 8 * n, 0.0, || {
            reduce::sums(s, &[a.view(), b.view(), c.view()], d.view_mut())
        })?;
        self.line("add_scaled", 10 * n, 0.0, || {
            reduce::add_scaled(s, w.view_mut(), 0.5, a.view())
        })?;
        self.line("nearest", 6 * n, 0.0, || {
            elementwise::nearest(s, &[g.view()], &mut [d.view_mut()])
        })?;
        let (lr, betas, eps, weight_decay) = (1e-3, (0.9, 0.95), 1e-8, 0.1);
        let how = Update { lr, betas, eps, weight_decay, step: 10, scale: 0.5 };
        self.line("adamw", 28 * n, 0.0, || {
            let (m, v, w) = (&mut [m.view_mut()], &mut [v.view_mut()], &mut [w.view_mut()]);
            elementwise::adamw(s, &how, &[g.view()], m, v, w)
        })?;
        self.line("transposed", 8 * n, 0.0, || {
            let (rows, cols) = (self.at.tokens, self.at.width);
            newton_schulz::transposed(s, &[g.view()], rows, cols, &mut [w.view_mut()])
        })
    }

    fn rows(&self) -> Result<(), DeviceError> {
        let (s, n) = (&self.stream, self.at.tokens * self.at.width);
        let (x, dy, mut y) = (self.bf16(n)?, self.bf16(n)?, self.bf16(n)?);
        let (w, mut rstd, mut dw) =
            (self.f32(self.at.width)?, self.f32(self.at.tokens)?, self.f32(self.at.width)?);
        self.line("rms_norm forward", 4 * n, 0.0, || {
            rms_norm::forward(s, x.view(), w.view(), 1e-6, y.view_mut(), rstd.view_mut())
        })?;
        self.line("rms_norm backward input", 6 * n, 0.0, || {
            let (r, dy, to) = (rstd.view(), dy.view(), y.view_mut());
            rms_norm::backward_input(s, x.view(), w.view(), r, dy, to)
        })?;
        let mut parts = self.f32(rms_norm::scratch(self.at.tokens, self.at.width))?;
        self.line("rms_norm backward weight", 4 * n, 0.0, || {
            let (r, parts, to) = (rstd.view(), parts.view_mut(), dw.view_mut());
            rms_norm::backward_weight(s, x.view(), r, dy.view(), parts, to)
        })?;
        let (mut codes, mut scales) = (
            self.arena.buffer::<u8>(n)?,
            self.f32(self.at.tokens * kernels::fp8::tiles(self.at.width))?,
        );
        self.line("fp8 encode", 3 * n, 0.0, || {
            fp8::encode(s, x.view(), self.at.width, codes.view_mut(), scales.view_mut())
        })?;
        self.line("fp8 decode", 3 * n, 0.0, || {
            fp8::decode(s, codes.view(), scales.view(), self.at.width, y.view_mut())
        })?;
        let g = self.f32(n)?;
        let mut parts = self.f32(squares::scratch(n, self.at.width))?;
        let mut words = self.arena.buffer(squares::RESULT)?;
        self.line("squares", 4 * n, 0.0, || {
            squares::of_rows(s, &[g.view()], self.at.width, parts.view_mut(), words.view_mut())
        })
    }

    /// Choices of all tokens, drawn at random.
    fn choices(&self) -> Result<Buffer<i32>, DeviceError> {
        let pick =
            |i: u64| (random::bits(3, i) % (self.at.experts / self.at.per_token) as u64) as i32;
        let choice =
            |i: usize| pick(i as u64) * self.at.per_token as i32 + (i % self.at.per_token) as i32;
        let all: Vec<i32> = (0..self.at.tokens * self.at.per_token).map(choice).collect();
        let mut buffer = self.arena.buffer(all.len())?;
        self.stream.upload(&all, buffer.view_mut())?;
        Ok(buffer)
    }

    fn routing(&self) -> Result<(), DeviceError> {
        let (s, choices) = (&self.stream, self.at.tokens * self.at.per_token);
        let (mut scores, bias) =
            (self.f32(self.at.tokens * self.at.experts)?, self.f32(self.at.experts)?);
        let (choice, mut chosen) = (self.choices()?, self.choices()?);
        self.line("router scores", 8 * self.at.tokens * self.at.experts, 0.0, || {
            router::scores(s, scores.view_mut())
        })?;
        let how = Choice {
            experts: self.at.experts,
            per_token: self.at.per_token,
            groups: 1,
            groups_per_token: 1,
        };
        self.line("router choose", 4 * self.at.tokens * self.at.experts, 0.0, || {
            router::choose(s, &how, scores.view(), bias.view(), chosen.view_mut())
        })?;
        let (mut rows, mut counts) =
            (self.arena.buffer::<i32>(choices)?, self.arena.buffer::<i32>(self.at.experts)?);
        self.line("routing", 8 * choices, 0.0, || {
            permute::routing(s, choice.view(), rows.view_mut(), counts.view_mut())
        })?;
        let (mut x, mut routed) =
            (self.bf16(self.at.tokens * self.at.width)?, self.bf16(choices * self.at.width)?);
        let bytes = 2 * self.at.width * (self.at.tokens + choices);
        self.line("scatter (dispatch)", bytes, 0.0, || {
            permute::scatter(
                s,
                rows.view(),
                x.view(),
                self.at.width,
                self.at.per_token,
                routed.view_mut(),
            )
        })?;
        self.line("gather_sum (combine)", bytes, 0.0, || {
            permute::gather_sum(
                s,
                rows.view(),
                routed.view(),
                self.at.width,
                self.at.per_token,
                x.view_mut(),
            )
        })?;
        let (share, mut weighed) = (self.f32(choices)?, self.bf16(choices * self.at.width)?);
        self.line("weigh", 4 * choices * self.at.width, 0.0, || {
            permute::weigh(s, routed.view(), share.view(), self.at.width, weighed.view_mut())
        })
    }

    fn loss(&self) -> Result<(), DeviceError> {
        let (s, n) = (&self.stream, self.at.tokens * self.at.vocab);
        let (logits, mut dlogits) = (self.f32(n)?, self.bf16(n)?);
        let (mut largest, mut sums) = (self.f32(self.at.tokens)?, self.f32(self.at.tokens)?);
        let mut tokens = self.arena.buffer::<i32>(self.at.tokens)?;
        let all: Vec<i32> = (0..self.at.tokens).map(|i| (i * 37 % self.at.vocab) as i32).collect();
        s.upload(&all, tokens.view_mut())?;
        self.line("cross_entropy extend", 4 * n, 0.0, || {
            cross_entropy::extend(
                s,
                logits.view(),
                self.at.vocab,
                largest.view_mut(),
                sums.view_mut(),
            )
        })?;
        self.line("cross_entropy gradient", 6 * n, 0.0, || {
            let (l, t, to) = (largest.view(), tokens.view(), dlogits.view_mut());
            cross_entropy::gradient(s, logits.view(), self.at.vocab, 0, l, t, 1.0, to)
        })?;
        let (table, mut x) =
            (self.bf16(self.at.vocab * self.at.width)?, self.bf16(self.at.tokens * self.at.width)?);
        self.line("embedding", 4 * self.at.tokens * self.at.width, 0.0, || {
            embedding::gather(s, table.view(), self.at.width, tokens.view(), x.view_mut())
        })?;
        let mut dtable = self.f32(self.at.vocab * self.at.width)?;
        self.line("embedding backward", 10 * self.at.tokens * self.at.width, 0.0, || {
            embedding::scatter_add(s, dtable.view_mut(), self.at.width, tokens.view(), x.view())
        })
    }

    /// Attention of heads as wide as K2's over one sequence.
    fn attention(&self) -> Result<(), DeviceError> {
        let heads = Heads {
            heads: self.at.heads,
            nope: 128,
            rope: 64,
            value: 128,
            scale: 192_f32.powf(-0.5),
        };
        let (s, t, h) = (&self.stream, self.at.tokens, heads.heads);
        let (q, kv, k_rope) =
            (self.bf16(t * h * 192)?, self.bf16(t * h * 256)?, self.bf16(t * 64)?);
        let frequencies: Vec<f64> = (0..32).map(|i| 0.75_f64.powi(i)).collect();
        let angles = Rotation::new(&frequencies, 1.0, 0, t).turns();
        let mut turns = self.arena.buffer(angles.len())?;
        s.upload(&angles, turns.view_mut())?;
        let (mut y, mut sums) = (self.bf16(t * h * 128)?, self.f32(t * h)?);
        let (mut rows, mut largest, mut turned) =
            (self.f32(t * h)?, self.f32(h)?, self.bf16(t * 64)?);
        let x = attention::Inputs { q: q.view(), kv: kv.view(), k_rope: k_rope.view() };
        // Half of the pairs are causal; a multiplication and an addition each.
        let pairs = h as f64 * (t as f64).powi(2);
        let bytes = 2 * t * (h * (192 + 256 + 128) + 64);
        self.line("attention forward", bytes, pairs * 320.0, || {
            let (y, sums) = (y.view_mut(), sums.view_mut());
            let (rows, most, turned) = (rows.view_mut(), largest.view_mut(), turned.view_mut());
            attention::forward(s, &heads, turns.view(), t, x, turned, y, sums, rows, most)
        })?;
        let (mut dq, mut dkv, mut dk) =
            (self.bf16(t * h * 192)?, self.bf16(t * h * 256)?, self.bf16(t * 64)?);
        let mut of_heads = self.f32(t * h * 64)?;
        self.line("attention backward", 2 * bytes, pairs * 832.0, || {
            let scratch =
                attention::Scratch { along: rows.view_mut(), k_rope: of_heads.view_mut() };
            let (q, kv, k_rope) = (dq.view_mut(), dkv.view_mut(), dk.view_mut());
            let dx = attention::Gradients { q, kv, k_rope };
            let (turns, sums, y) = (turns.view(), sums.view(), y.view());
            attention::backward(s, &heads, turns, t, x, sums, Some(y), y, scratch, dx)
        })
    }
}

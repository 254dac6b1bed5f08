//! Attention, forward and backward, of all widths, ragged and tiny sequences.

use half::bf16;
use kernels::{
    attention::{self, Heads},
    cuda::{
        Buffer, DeviceError, Float, View,
        attention::{self as device, Gradients, Inputs, Scratch},
    },
    rope::Rotation,
};

use crate::bed::{Bed, Same, WIDTHS, named};

/// Heads, tokens of a sequence, sequences: one key, several sequences, whole tiles and ragged ones,
/// more tiles than are there at a time, none.
const SHAPES: [(usize, usize, usize); 7] =
    [(1, 1, 1), (2, 5, 2), (1, 64, 1), (2, 131, 2), (1, 192, 1), (1, 297, 1), (3, 9, 0)];

/// More tiles than are there at a time, the last one ragged.
const FEW_SHAPES: [(usize, usize, usize); 1] = [(1, 270, 1)];

pub fn all(bed: &mut Bed) -> Result<(), DeviceError> {
    let (all, shapes): (_, &[_]) =
        if bed.is_brief { (1..3, &FEW_SHAPES) } else { (0..WIDTHS.len(), &SHAPES) };
    for widths in &WIDTHS[all] {
        let scale = 1.0 / ((widths.nope + widths.rope) as f32).sqrt();
        for &(heads, sequence, sequences) in shapes {
            let (nope, rope, value) = (widths.nope, widths.rope, widths.value);
            let heads = Heads { heads, nope, rope, value, scale };
            both::<f32>(bed, &heads, sequence, sequences)?;
            both::<bf16>(bed, &heads, sequence, sequences)?;
        }
    }
    Ok(())
}

/// Attention on the host, and its inputs on the device.
struct Case<N: Float> {
    heads: Heads,
    sequence: usize,
    tokens: usize,
    rotation: Rotation,
    turns: Buffer<f32>,
    on_host: [Vec<N>; 3],
    on_device: [Buffer<N>; 3],
}

impl<N: Float> Case<N> {
    fn new(
        bed: &mut Bed,
        heads: &Heads,
        sequence: usize,
        sequences: usize,
    ) -> Result<Self, DeviceError> {
        let tokens = sequence * sequences;
        let &Heads { heads: h, nope, rope, value, .. } = heads;
        let frequencies: Vec<f64> = (0..rope / 2).map(|i| 0.8_f64.powi(i as i32)).collect();
        let rotation = Rotation::new(&frequencies, 1.0, 0, sequence);
        let widths = [h * (nope + rope), h * (nope + value), rope];
        let on_host = widths.map(|width| bed.normal(tokens * width, 1.0));
        let [q, kv, k_rope] = &on_host;
        let on_device = [bed.up(q)?, bed.up(kv)?, bed.up(k_rope)?];
        let turns = bed.up(&rotation.turns())?;
        Ok(Case { heads: *heads, sequence, tokens, rotation, turns, on_host, on_device })
    }

    fn inputs(&self) -> attention::Inputs<'_, N> {
        let [q, kv, k_rope] = &self.on_host;
        attention::Inputs { q, kv, k_rope }
    }

    fn views(&self) -> Inputs<'_, N> {
        let [q, kv, k_rope] = &self.on_device;
        Inputs { q: q.view(), kv: kv.view(), k_rope: k_rope.view() }
    }
}

fn both<N: Float + Same>(
    bed: &mut Bed,
    heads: &Heads,
    sequence: usize,
    sequences: usize,
) -> Result<(), DeviceError> {
    let case = Case::<N>::new(bed, heads, sequence, sequences)?;
    let (y, log_sums) = forward(bed, &case)?;
    backward(bed, &case, &y, &log_sums)
}

/// Shares are rounded before they are normalised here and after that on the CPU, so in BF16 the
/// results differ by a few roundings of a share.
fn tolerance<N: Float>() -> f64 {
    if size_of::<N>() == 2 { 8e-3 } else { 5e-6 }
}

fn forward<N: Float + Same>(
    bed: &mut Bed,
    case: &Case<N>,
) -> Result<(Vec<N>, Vec<f32>), DeviceError> {
    let &Case { heads, sequence, tokens, .. } = case;
    let name = |what: &str| named::<N>(what, (heads, sequence, tokens));
    let (h, width) = (heads.heads, heads.heads * heads.value);
    let (mut y, mut log_sums) = (vec![N::ZERO; tokens * width], vec![0.0; tokens * h]);
    let mut largest = vec![0.0; h];
    let (x, rotation) = (case.inputs(), &case.rotation);
    attention::forward(&heads, rotation, sequence, x, &mut y, &mut log_sums, &mut largest);

    let (mut on_y, mut on_sums) = (bed.poisoned(y.len())?, bed.poisoned(tokens * h)?);
    let (mut of_rows, mut on_largest) = (bed.poisoned(tokens * h)?, bed.poisoned(h)?);
    let mut turned = bed.poisoned(tokens * heads.rope)?;
    let (to_y, to_sums) = (on_y.view_mut(), on_sums.view_mut());
    let (to_rows, to_largest) = (of_rows.view_mut(), on_largest.view_mut());
    let (x, turns, on_turned) = (case.views(), case.turns.view(), turned.view_mut());
    let stream = bed.stream.clone();
    let (most, rows, sums) = (to_largest, to_rows, to_sums);
    device::forward(&stream, &heads, turns, sequence, x, on_turned, to_y, sums, rows, most)?;
    bed.close(&name("attention y"), &on_y, &y, tolerance::<N>())?;
    bed.close(&name("attention log_sums"), &on_sums, &log_sums, 5e-6)?;
    if 0 < tokens {
        bed.close(&name("attention largest"), &on_largest, &largest, 5e-6)?;
    }
    if sequence < tokens {
        second_alone(bed, case, &on_y)?;
    }
    Ok((y, log_sums))
}

/// A sequence alone has the bits that it has beside others.
fn second_alone<N: Float + Same>(
    bed: &mut Bed,
    case: &Case<N>,
    together: &Buffer<N>,
) -> Result<(), DeviceError> {
    let &Case { heads, sequence, tokens, .. } = case;
    let Heads { heads: h, nope, rope, value, .. } = heads;
    let tail = |width: usize| sequence * width..2 * sequence * width;
    let Inputs { q, kv, k_rope } = case.views();
    let (q, kv) = (q.part(tail(h * (nope + rope))), kv.part(tail(h * (nope + value))));
    let x = Inputs { q, kv, k_rope: k_rope.part(tail(rope)) };
    let mut y = bed.poisoned(sequence * h * value)?;
    let [mut a, mut b] = [bed.poisoned(sequence * h)?, bed.poisoned(sequence * h)?];
    let (mut largest, mut turned) = (bed.poisoned(h)?, bed.poisoned(sequence * rope)?);
    let (a, b, to, most) = (a.view_mut(), b.view_mut(), y.view_mut(), largest.view_mut());
    let stream = bed.stream.clone();
    let (turns, turned) = (case.turns.view(), turned.view_mut());
    device::forward(&stream, &heads, turns, sequence, x, turned, to, a, b, most)?;
    let together = bed.down(together)?;
    let name = named::<N>("attention of one sequence", (heads, tokens));
    bed.same(&name, &y, &together[tail(h * value)])
}

/// With `y` kept and without it.
fn backward<N: Float + Same>(
    bed: &mut Bed,
    case: &Case<N>,
    y: &[N],
    log_sums: &[f32],
) -> Result<(), DeviceError> {
    let &Case { heads, sequence, tokens, .. } = case;
    let dy: Vec<N> = bed.normal(tokens * heads.heads * heads.value, 1.0);
    let [mut q, mut kv, mut k_rope] = case.on_host.each_ref().map(|x| vec![N::ZERO; x.len()]);
    let dx = attention::Gradients { q: &mut q, kv: &mut kv, k_rope: &mut k_rope };
    attention::backward(&heads, &case.rotation, sequence, case.inputs(), log_sums, &dy, dx);
    let (on_y, on_sums, on_dy) = (bed.up(y)?, bed.up(log_sums)?, bed.up(&dy)?);
    for (how, y) in [("y kept", Some(on_y.view())), ("no y", None)] {
        let [on_q, on_kv, on_k_rope] = gradients(bed, case, on_sums.view(), y, on_dy.view())?;
        let name = |what: &str| named::<N>(&format!("{what}, {how}"), (heads, sequence, tokens));
        bed.close(&name("attention dq"), &on_q, &q, 2.0 * tolerance::<N>())?;
        bed.close(&name("attention dkv"), &on_kv, &kv, tolerance::<N>())?;
        bed.close(&name("attention dk_rope"), &on_k_rope, &k_rope, 2.0 * tolerance::<N>())?;
    }
    Ok(())
}

/// Those of the three inputs, from the device.
fn gradients<N: Float>(
    bed: &Bed,
    case: &Case<N>,
    log_sums: View<'_, f32>,
    y: Option<View<'_, N>>,
    dy: View<'_, N>,
) -> Result<[Buffer<N>; 3], DeviceError> {
    let &Case { heads, sequence, tokens, .. } = case;
    let [q, kv, k_rope] = &case.on_host;
    let mut all = [bed.poisoned(q.len())?, bed.poisoned(kv.len())?, bed.poisoned(k_rope.len())?];
    let (mut along, mut of_heads) =
        (bed.poisoned(tokens * heads.heads)?, bed.poisoned(tokens * heads.heads * heads.rope)?);
    let scratch = Scratch { along: along.view_mut(), k_rope: of_heads.view_mut() };
    let [q, kv, k_rope] = &mut all;
    let dx = Gradients { q: q.view_mut(), kv: kv.view_mut(), k_rope: k_rope.view_mut() };
    let (stream, x, turns) = (&bed.stream, case.views(), case.turns.view());
    device::backward(stream, &heads, turns, sequence, x, log_sums, y, dy, scratch, dx)?;
    Ok(all)
}

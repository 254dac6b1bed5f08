//! RMSNorm, rotary positions, FP8, columns, maxima, embedding.

use half::bf16;
use kernels::{
    cuda::{
        DeviceError, Float, embedding as on_embedding, fp8 as on_fp8, reduce as on_reduce,
        rms_norm as on_norm,
        rope::{self as on_rope, Place},
    },
    embedding, fp8, rms_norm,
    rope::Rotation,
};

use crate::bed::{Bed, Same, named, tolerance};

pub fn all(bed: &mut Bed) -> Result<(), DeviceError> {
    for &(rows, width) in bed.extents() {
        norm::<f32>(bed, rows, width)?;
        norm::<bf16>(bed, rows, width)?;
        stored::<f32>(bed, rows, width)?;
        stored::<bf16>(bed, rows, width)?;
        embedded::<f32>(bed, rows, width)?;
        embedded::<bf16>(bed, rows, width)?;
        columns::<f32>(bed, rows, width)?;
        columns::<bf16>(bed, rows, width)?;
        largest(bed, rows, width)?;
    }
    for (heads, pairs, from) in [(1, 2, 0), (3, 8, 5), (2, 32, 128)] {
        turned::<f32>(bed, heads, pairs, from)?;
        turned::<bf16>(bed, heads, pairs, from)?;
    }
    Ok(())
}

fn norm<N: Float + Same>(bed: &mut Bed, rows: usize, width: usize) -> Result<(), DeviceError> {
    let name = |what: &str| named::<N>(what, (rows, width));
    let (x, dy): (Vec<N>, Vec<N>) = (bed.normal(rows * width, 2.0), bed.normal(rows * width, 1.0));
    let w: Vec<f32> = bed.normal(width, 1.0);
    let (mut y, mut rstd) = (vec![N::ZERO; x.len()], vec![0.0; rows]);
    rms_norm::forward(&x, &w, 1e-6, &mut y, &mut rstd);
    let (on_x, on_w, on_dy) = (bed.up(&x)?, bed.up(&w)?, bed.up(&dy)?);
    let (mut on_y, mut on_rstd) = (bed.poisoned(x.len())?, bed.poisoned(rows)?);
    let stream = bed.stream.clone();
    let (to_y, to_rstd) = (on_y.view_mut(), on_rstd.view_mut());
    on_norm::forward(&stream, on_x.view(), on_w.view(), 1e-6, to_y, to_rstd)?;
    bed.close(&name("rms_norm y"), &on_y, &y, tolerance::<N>())?;
    bed.close(&name("rms_norm rstd"), &on_rstd, &rstd, 2e-6)?;

    let on_rstd = bed.up(&rstd)?;
    let mut dx = vec![N::ZERO; x.len()];
    rms_norm::backward_input(&x, &w, &rstd, &dy, &mut dx);
    let mut on_dx = bed.poisoned(x.len())?;
    let (r, d) = (on_rstd.view(), on_dy.view());
    on_norm::backward_input(&stream, on_x.view(), on_w.view(), r, d, on_dx.view_mut())?;
    bed.close(&name("rms_norm dx"), &on_dx, &dx, 2.0 * tolerance::<N>())?;

    let mut dw: Vec<f32> = bed.normal(width, 1.0);
    let mut on_dw = bed.up(&dw)?;
    rms_norm::backward_weight(&x, &rstd, &dy, &mut dw);
    let mut parts = bed.poisoned(on_norm::scratch(rows, width))?;
    let (parts, to) = (parts.view_mut(), on_dw.view_mut());
    on_norm::backward_weight(&stream, on_x.view(), r, d, parts, to)?;
    bed.close(&name("rms_norm dw"), &on_dw, &dw, 2e-6)?;

    if 1 < rows {
        // A row alone has the bits that it has beside others.
        let (mut alone, mut its_rstd) = (bed.poisoned(width)?, bed.poisoned(1)?);
        let row = on_x.view().part(width..2 * width);
        let (to_y, to_rstd) = (alone.view_mut(), its_rstd.view_mut());
        on_norm::forward(&stream, row, on_w.view(), 1e-6, to_y, to_rstd)?;
        let together = bed.down(&on_y)?;
        bed.same(&name("rms_norm of one row"), &alone, &together[width..2 * width])?;
    }
    Ok(())
}

fn stored<N: Float + Same>(bed: &mut Bed, rows: usize, width: usize) -> Result<(), DeviceError> {
    let name = |what: &str| named::<N>(what, (rows, width));
    let mut x: Vec<N> = bed.normal(rows * width, 3.0);
    let special = [f32::NAN, f32::INFINITY, 0.0, 1e-38, 448.0, 1e30];
    if 200 < x.len() {
        let places = x.iter_mut().step_by(151);
        places.zip(special).for_each(|(x, special)| *x = N::nearest(special));
    }
    let scales = rows * fp8::tiles(width);
    let (mut codes, mut scale) = (vec![0; x.len()], vec![0.0; scales]);
    fp8::encode(&x, width, &mut codes, &mut scale);
    let (on_x, mut on_codes, mut on_scales) =
        (bed.up(&x)?, bed.poisoned(x.len())?, bed.poisoned(scales)?);
    let (to_codes, to_scales) = (on_codes.view_mut(), on_scales.view_mut());
    on_fp8::encode(&bed.stream, on_x.view(), width, to_codes, to_scales)?;
    bed.same(&name("fp8 codes"), &on_codes, &codes)?;
    bed.same(&name("fp8 scales"), &on_scales, &scale)?;
    fp8::decode(&codes, &scale, width, &mut x);
    let mut back = bed.poisoned(x.len())?;
    let (codes, scales) = (on_codes.view(), on_scales.view());
    on_fp8::decode(&bed.stream, codes, scales, width, back.view_mut())?;
    bed.same(&name("fp8 decode"), &back, &x)
}

fn embedded<N: Float + Same>(bed: &mut Bed, rows: usize, width: usize) -> Result<(), DeviceError> {
    let vocab = 5;
    let table: Vec<N> = bed.normal(vocab * width, 1.0);
    let tokens = bed.below(rows, vocab);
    let mut y = vec![N::ZERO; rows * width];
    embedding::gather(&table, width, &tokens, &mut y);
    let (on_table, on_tokens) = (bed.up(&table)?, bed.up(&tokens)?);
    let mut on_y = bed.poisoned(y.len())?;
    let from = on_tokens.view();
    on_embedding::gather(&bed.stream, on_table.view(), width, from, on_y.view_mut())?;
    bed.same(&named::<N>("embedding", (rows, width)), &on_y, &y)?;

    let dy: Vec<N> = bed.normal(y.len(), 1.0);
    let mut dtable: Vec<f32> = bed.normal(vocab * width, 1.0);
    let (on_dy, mut on_dtable) = (bed.up(&dy)?, bed.up(&dtable)?);
    embedding::scatter_add(&mut dtable, width, &tokens, &dy);
    on_embedding::scatter_add(&bed.stream, on_dtable.view_mut(), width, from, on_dy.view())?;
    bed.same(&named::<N>("embedding dtable", (rows, width)), &on_dtable, &dtable)?;

    let outside = bed.up(&[-1, vocab as i32])?;
    let mut on_y = bed.poisoned(2 * width)?;
    on_embedding::gather(&bed.stream, on_table.view(), width, outside.view(), on_y.view_mut())?;
    let nan = vec![N::nearest(f32::NAN); 2 * width];
    bed.same(&named::<N>("embedding of no token", width), &on_y, &nan)
}

fn columns<N: Float + Same>(bed: &mut Bed, rows: usize, width: usize) -> Result<(), DeviceError> {
    let from = width / 3;
    let cols = width - from - width / 4;
    let mut x: Vec<N> = bed.normal(rows * width, 1.0);
    let part: Vec<N> = x.chunks(width).flat_map(|row| row[from..from + cols].to_vec()).collect();
    let (mut on_x, mut on_y) = (bed.up(&x)?, bed.poisoned(rows * cols)?);
    on_reduce::split(&bed.stream, on_x.view(), width, from, cols, on_y.view_mut())?;
    bed.same(&named::<N>("split", (rows, width)), &on_y, &part)?;

    let y: Vec<N> = bed.normal(rows * cols, 1.0);
    let on_y = bed.up(&y)?;
    on_reduce::join(&bed.stream, on_x.view_mut(), width, from, cols, on_y.view())?;
    for (x, y) in x.chunks_mut(width).zip(y.chunks(cols)) {
        x[from..from + cols].copy_from_slice(y);
    }
    bed.same(&named::<N>("join", (rows, width)), &on_x, &x)
}

fn largest(bed: &mut Bed, rows: usize, width: usize) -> Result<(), DeviceError> {
    let x: Vec<f32> = bed.normal(rows * width, 1.0);
    let column = |c: usize| x.iter().skip(c).step_by(width).copied();
    let expected: Vec<f32> =
        (0..width).map(|c| column(c).fold(f32::NEG_INFINITY, f32::max)).collect();
    let (on_x, mut out) = (bed.up(&x)?, bed.poisoned(width)?);
    on_reduce::largest_of_columns(&bed.stream, on_x.view(), out.view_mut())?;
    bed.same(&format!("largest [{rows}, {width}]"), &out, &expected)
}

fn turned<N: Float + Same>(
    bed: &mut Bed,
    heads: usize,
    pairs: usize,
    from: usize,
) -> Result<(), DeviceError> {
    let (sequence, sequences) = (5, 3);
    let frequencies: Vec<f64> = (0..pairs).map(|i| 0.7_f64.powi(i as i32)).collect();
    let rotation = Rotation::new(&frequencies, 1.1, 0, sequence);
    let turns = bed.up(&rotation.turns())?;
    let width = from + 2 * pairs + 1;
    let place = Place { rows_per_token: heads, sequence, width, from, pairs };
    let rows = sequence * sequences * heads;
    let mut x: Vec<N> = bed.normal(rows * width, 1.0);
    let mut on_x = bed.up(&x)?;
    on_rope::turn(&bed.stream, turns.view(), &place, on_x.view_mut())?;
    let position = |row: usize| row / heads % sequence;
    for (row, x) in x.chunks_mut(width).enumerate() {
        rotation.turn(position(row), &mut x[from..from + 2 * pairs]);
    }
    bed.same(&named::<N>("rope turn", (heads, pairs)), &on_x, &x)?;

    let mut x: Vec<f32> = bed.normal(rows * width, 1.0);
    let mut on_x = bed.up(&x)?;
    on_rope::turn_back(&bed.stream, turns.view(), &place, on_x.view_mut())?;
    for (row, x) in x.chunks_mut(width).enumerate() {
        rotation.turn_back(position(row), &mut x[from..from + 2 * pairs]);
    }
    bed.same(&format!("rope turn_back ({heads}, {pairs})"), &on_x, &x)
}

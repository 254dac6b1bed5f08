//! The router, and rows on their way to experts and back.

use half::bf16;
use kernels::{
    cuda::{DeviceError, Float, permute as on_permute, router as on_router},
    permute::Routing,
    reduce,
    router::{self, Choice},
};

use crate::bed::{Bed, Same, named};

pub fn all(bed: &mut Bed) -> Result<(), DeviceError> {
    for (experts, per_token, groups, groups_per_token) in
        [(1, 1, 1, 1), (8, 2, 1, 1), (8, 3, 4, 2), (33, 8, 1, 1), (384, 8, 1, 1), (256, 8, 8, 4)]
    {
        let how = Choice { experts, per_token, groups, groups_per_token };
        let tokens: &[usize] = if bed.is_brief { &[13] } else { &[0, 1, 13, 70] };
        for &tokens in tokens {
            routed(bed, &how, tokens)?;
        }
    }
    strange_scores(bed)?;
    for &(tokens, width) in bed.extents() {
        for (experts, per_token) in [(4, 1), (5, 3)] {
            permuted::<f32>(bed, tokens, width, experts, per_token)?;
            permuted::<bf16>(bed, tokens, width, experts, per_token)?;
        }
        weighed::<f32>(bed, tokens, width)?;
        weighed::<bf16>(bed, tokens, width)?;
    }
    Ok(())
}

fn routed(bed: &mut Bed, how: &Choice, tokens: usize) -> Result<(), DeviceError> {
    let &Choice { experts, per_token, .. } = how;
    let name = |what: &str| format!("{what} {how:?} {tokens}");
    let mut scores: Vec<f32> = bed.normal(tokens * experts, 2.0);
    let bias: Vec<f32> = bed.normal(experts, 0.1);
    let (mut on_scores, on_bias) = (bed.up(&scores)?, bed.up(&bias)?);
    router::scores(&mut scores);
    let stream = bed.stream.clone();
    on_router::scores(&stream, on_scores.view_mut())?;
    bed.same(&name("scores"), &on_scores, &scores)?;

    let choices = tokens * per_token;
    let mut chosen = vec![0; choices];
    router::choose(how, &scores, &bias, &mut chosen);
    let mut on_chosen = bed.poisoned(choices)?;
    let (s, to) = (on_scores.view(), on_chosen.view_mut());
    on_router::choose(&stream, how, s, on_bias.view(), to)?;
    bed.same(&name("choose"), &on_chosen, &chosen)?;

    let (mut own, mut shares) = (vec![0.0; choices], vec![0.0; choices]);
    router::shares(experts, per_token, 2.5, &scores, &chosen, &mut own, &mut shares);
    let (mut on_own, mut on_shares) = (bed.poisoned(choices)?, bed.poisoned(choices)?);
    let (c, to_own, to_shares) = (on_chosen.view(), on_own.view_mut(), on_shares.view_mut());
    on_router::shares(&stream, experts, per_token, 2.5, s, c, to_own, to_shares)?;
    bed.same(&name("chosen scores"), &on_own, &own)?;
    bed.same(&name("shares"), &on_shares, &shares)?;

    let dshares: Vec<f32> = bed.normal(choices, 1.0);
    let mut dlogits = vec![0.0; tokens * experts];
    router::backward(experts, per_token, 2.5, &chosen, &own, &dshares, &mut dlogits);
    let (on_dshares, mut on_dlogits) = (bed.up(&dshares)?, bed.poisoned(dlogits.len())?);
    let (o, d, to) = (on_own.view(), on_dshares.view(), on_dlogits.view_mut());
    on_router::backward(&stream, experts, per_token, 2.5, c, o, d, to)?;
    bed.same(&name("dlogits"), &on_dlogits, &dlogits)
}

/// Equal scores, zeros of both signs, and what is no number, in the order of the CPU.
fn strange_scores(bed: &mut Bed) -> Result<(), DeviceError> {
    let how = Choice { experts: 8, per_token: 3, groups: 4, groups_per_token: 3 };
    let rows = [
        [0.5; 8],
        [0.5, f32::NAN, 0.5, f32::NAN, 0.1, 0.0, -0.0, 0.2],
        [-0.0, 0.0, -0.0, 0.0, -1.0, -2.0, f32::NEG_INFINITY, f32::INFINITY],
        [-1.0, -1.0, -3.0, -3.0, -2.0, -2.0, -4.0, -0.5],
    ];
    let scores = rows.concat();
    let mut chosen = vec![0; rows.len() * how.per_token];
    router::choose(&how, &scores, &[-0.0; 8], &mut chosen);
    let (on_scores, bias) = (bed.up(&scores)?, bed.up(&[-0.0_f32; 8])?);
    let mut out = bed.poisoned(chosen.len())?;
    on_router::choose(&bed.stream, &how, on_scores.view(), bias.view(), out.view_mut())?;
    bed.same("choose among strange scores", &out, &chosen)
}

fn permuted<N: Float + Same>(
    bed: &mut Bed,
    tokens: usize,
    width: usize,
    experts: usize,
    per_token: usize,
) -> Result<(), DeviceError> {
    let name = |what: &str| named::<N>(what, (tokens, width, experts, per_token));
    let choice = bed.choices(tokens, per_token, experts);
    let routing = Routing::new(&choice, experts);
    let rows: Vec<i32> = routing.rows.iter().map(|row| *row as i32).collect();
    let on_choice = bed.up(&choice)?;
    let (mut on_rows, mut on_counts) = (bed.poisoned(rows.len())?, bed.poisoned(experts)?);
    let stream = bed.stream.clone();
    on_permute::routing(&stream, on_choice.view(), on_rows.view_mut(), on_counts.view_mut())?;
    bed.same(&name("rows"), &on_rows, &rows)?;
    bed.same(&name("counts"), &on_counts, &routing.counts)?;

    let x: Vec<N> = bed.normal(tokens * width, 1.0);
    let mut y = vec![N::ZERO; rows.len() * width];
    routing.scatter(&x, width, per_token, &mut y);
    let (on_x, mut on_y) = (bed.up(&x)?, bed.poisoned(y.len())?);
    let r = on_rows.view();
    on_permute::scatter(&stream, r, on_x.view(), width, per_token, on_y.view_mut())?;
    bed.same(&name("scatter"), &on_y, &y)?;

    let x: Vec<N> = bed.normal(rows.len() * width, 1.0);
    let mut y = vec![N::ZERO; tokens * width];
    routing.gather_sum(&x, width, &mut y);
    let (on_x, mut on_y) = (bed.up(&x)?, bed.poisoned(y.len())?);
    on_permute::gather_sum(&stream, r, on_x.view(), width, per_token, on_y.view_mut())?;
    bed.same(&name("gather_sum"), &on_y, &y)?;

    let share: Vec<f32> = bed.normal(rows.len(), 1.0);
    let (on_share, mut sorted) = (bed.up(&share)?, bed.poisoned(rows.len())?);
    on_permute::sorted(&stream, r, on_share.view(), sorted.view_mut())?;
    bed.same(&name("sorted"), &sorted, &routing.sorted(&share))?;
    let mut back = bed.poisoned(rows.len())?;
    on_permute::unsorted(&stream, r, sorted.view(), back.view_mut())?;
    bed.same(&name("unsorted"), &back, &share)
}

fn weighed<N: Float + Same>(bed: &mut Bed, count: usize, width: usize) -> Result<(), DeviceError> {
    let (rows, dy): (Vec<N>, Vec<N>) =
        (bed.normal(count * width, 1.0), bed.normal(count * width, 1.0));
    let share: Vec<f32> = bed.normal(count, 1.0);
    let mut y = vec![N::ZERO; rows.len()];
    for ((row, y), share) in rows.chunks(width).zip(y.chunks_mut(width)).zip(&share) {
        reduce::scaled(row, *share, y);
    }
    let dots: Vec<f32> =
        rows.chunks(width).zip(dy.chunks(width)).map(|(row, dy)| reduce::dot(row, dy)).collect();
    let (on_rows, on_dy, on_share) = (bed.up(&rows)?, bed.up(&dy)?, bed.up(&share)?);
    let (mut on_y, mut on_dots) = (bed.poisoned(y.len())?, bed.poisoned(count)?);
    let stream = bed.stream.clone();
    on_permute::weigh(&stream, on_rows.view(), on_share.view(), width, on_y.view_mut())?;
    bed.same(&named::<N>("weigh", (count, width)), &on_y, &y)?;
    let (r, d, to) = (on_rows.view(), on_dy.view(), on_dots.view_mut());
    on_permute::weigh_share(&stream, r, d, width, to)?;
    // A sum of products of either sign may be far smaller than they are.
    bed.close(&named::<N>("weigh_share", (count, width)), &on_dots, &dots, 1e-4)?;
    Ok(())
}

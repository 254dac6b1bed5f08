//! Which parameters an actor's updates take together.
//!
//! On a GPU each of the updates' calls takes the host some microseconds, and a layer of experts
//! has hundreds of small matrices; so parameters of one kind that follow each other go together, as
//! many as [`at_once`] says. On the host, where a call costs nothing, each is alone, and so is one
//! whose master and state live on the host and cross its bus: they have to have left before the
//! next come.
//!
//! Batches follow from the shares and are fixed before the first step, whatever comes when: nobody
//! who waits for the directions of a batch waits for an actor that waits for it. Bits do not depend
//! on them (`kernels::cuda::newton_schulz`).

use std::collections::BTreeMap;

use graphs::address::Address;
use kernels::cuda::newton_schulz::at_once;
use ops::{DType, Place, Rule};

use crate::brief::Brief;

/// What parameters have in common that are updated together.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Kind {
    rule: Rule,
    format: DType,
    shape: Vec<usize>,
    /// Rows of the own slice.
    rows: usize,
}

/// The batches of one actor; parameters in each are in rising order.
#[derive(Debug)]
pub(crate) struct Batches {
    /// Of own slices, all of them.
    pub own: Vec<Vec<usize>>,
    /// Of matrices that this actor runs Newton-Schulz on.
    matrices: Vec<Vec<usize>>,
    /// Where a matrix is among these.
    place_of: BTreeMap<usize, usize>,
}

impl Batches {
    /// Those of an actor.
    pub(crate) fn new(brief: &Brief, me: Address) -> Self {
        let about = brief.graph.parameters();
        let rows = |index: usize| {
            let share = &brief.shares[index];
            share.position(me).map_or(0, |position| share.slice(position).len())
        };
        let kind = |index: usize| {
            let spec = &about[index].spec;
            let is_alone = brief.hosted.contains(index, me);
            let has_gpu = matches!(brief.place(me), Place::Gpu(_));
            let (shape, format) = (spec.shape.clone(), brief.format(index));
            let kind = Kind { rule: spec.rule, format, shape, rows: rows(index) };
            (index, (has_gpu && !is_alone).then_some(kind))
        };
        let is_matrix = |index: &usize| {
            let spec = &about[*index].spec;
            let is_muons = brief.optimizer.muon(spec.rule, &spec.shape).is_some();
            is_muons && brief.shares[*index].owner == me
        };
        let own = (0..about.len()).filter(|index| rows(*index) > 0).map(kind);
        let own = together(own);
        let matrices = together((0..about.len()).filter(is_matrix).map(kind));
        let places = matrices.iter().enumerate();
        let place_of = places.flat_map(|(at, all)| all.iter().map(move |index| (*index, at)));
        Batches { place_of: place_of.collect(), own, matrices }
    }

    /// The matrices that Newton-Schulz takes together with one that it runs on here.
    pub(crate) fn with(&self, matrix: usize) -> &[usize] {
        &self.matrices[self.place_of[&matrix]]
    }
}

/// Puts neighbours of one kind together; what has none is alone.
fn together(all: impl Iterator<Item = (usize, Option<Kind>)>) -> Vec<Vec<usize>> {
    let (mut batches, mut last): (Vec<Vec<usize>>, Option<Kind>) = (Vec::new(), None);
    for (index, kind) in all {
        let most = |kind: &Kind| at_once(kind.shape.iter().product());
        match (batches.last_mut(), &kind) {
            (Some(batch), Some(own)) if last == kind && batch.len() < most(own) => {
                batch.push(index);
            }
            _ => batches.push(vec![index]),
        }
        last = kind;
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(shape: &[usize], rows: usize) -> Option<Kind> {
        Some(Kind { rule: Rule::Muon, format: DType::Bf16, shape: shape.to_vec(), rows })
    }

    #[test]
    fn neighbours_of_one_kind_go_together_and_nobody_else() {
        let all = [
            (0, kind(&[4, 2], 4)),
            (1, kind(&[4, 2], 4)),
            (3, kind(&[4, 2], 4)),
            (4, kind(&[2, 4], 2)),
            (5, kind(&[4, 2], 4)),
            (6, kind(&[4, 2], 2)),
            (7, None),
            (8, None),
            (9, kind(&[4, 2], 2)),
        ];
        let expected = [&[0, 1, 3][..], &[4], &[5], &[6], &[7], &[8], &[9]];
        assert_eq!(together(all.into_iter()), expected);
    }

    #[test]
    fn a_batch_is_bounded_by_matrices_and_by_elements() {
        let sizes = |shape: [usize; 2]| -> Vec<usize> {
            let all = (0..130).map(|index| (index, kind(&shape, 1)));
            together(all).iter().map(Vec::len).collect()
        };
        assert_eq!(sizes([512, 1536]), [64, 64, 2]);
        assert_eq!(sizes([1 << 10, 1 << 11])[..4], [32, 32, 32, 32]);
        assert_eq!(sizes([1 << 13, 1 << 14]), [1; 130]);
    }
}

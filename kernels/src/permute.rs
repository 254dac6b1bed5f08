//! Tokens to routed rows and back: where each row goes, and the sums that come back.

use crate::{
    number::Number,
    reduce::{add_scaled, scaled},
};

/// The routed rows of some tokens, sorted by (expert, token).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Routing {
    /// Row of the `j`-th choice of token `t`, at `t * k + j`.
    pub rows: Vec<usize>,
    /// Rows of each expert.
    pub counts: Vec<i32>,
}

impl Routing {
    /// Sorts `choice [t, k]` by counting; stable, so tokens stay in order within an expert.
    ///
    /// # Panics
    ///
    /// If a choice is not below `experts`.
    pub fn new(choice: &[i32], experts: usize) -> Self {
        let mut counts = vec![0; experts];
        choice.iter().for_each(|&expert| counts[expert as usize] += 1);
        let mut next: Vec<usize> = counts
            .iter()
            .scan(0, |end, &count| {
                let start = *end;
                *end += count as usize;
                Some(start)
            })
            .collect();
        let place = |&expert: &i32| {
            next[expert as usize] += 1;
            next[expert as usize] - 1
        };
        Routing { rows: choice.iter().map(place).collect(), counts }
    }

    /// `y[row of (t, j)] = x[t]`.
    pub fn scatter<N: Number>(&self, x: &[N], width: usize, per_token: usize, y: &mut [N]) {
        for (x, rows) in x.chunks_exact(width).zip(self.rows.chunks_exact(per_token)) {
            for row in rows {
                y[row * width..][..width].copy_from_slice(x);
            }
        }
    }

    /// `y[row of (t, j)] = x[t, j]`.
    pub fn sorted(&self, x: &[f32]) -> Vec<f32> {
        let mut y = vec![0.0; x.len()];
        self.rows.iter().zip(x).for_each(|(row, x)| y[*row] = *x);
        y
    }

    /// `x[t, j] = y[row of (t, j)]`.
    pub fn unsorted(&self, y: &[f32]) -> Vec<f32> {
        self.rows.iter().map(|row| y[*row]).collect()
    }

    /// `y[t] = sum_j x[row of (t, j)]`, added in F32 in the order of `j`.
    pub fn gather_sum<N: Number>(&self, x: &[N], width: usize, y: &mut [N]) {
        let per_token = (self.rows.len() / (y.len() / width).max(1)).max(1);
        let mut sum = vec![0.0; width];
        for (y, rows) in y.chunks_exact_mut(width).zip(self.rows.chunks(per_token)) {
            sum.fill(0.0);
            rows.iter().for_each(|row| add_scaled(&mut sum, 1.0, &x[row * width..][..width]));
            scaled(&sum, 1.0, y);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_sorted_by_expert_then_token_and_come_back_in_the_routers_order() {
        let routing = Routing::new(&[2, 0, 0, 2, 3, 2], 4);
        assert_eq!(routing.counts, [2, 0, 3, 1]);
        assert_eq!(routing.rows, [2, 0, 1, 3, 5, 4]);
        let mut rows = vec![0.0; 6];
        routing.scatter(&[1.0, 2.0, 3.0], 1, 2, &mut rows);
        assert_eq!(rows, [1.0, 2.0, 1.0, 2.0, 3.0, 3.0]);
        let mut sums = vec![0.0; 3];
        routing.gather_sum(&rows, 1, &mut sums);
        assert_eq!(sums, [2.0, 4.0, 6.0]);
        let shares = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        assert_eq!(routing.sorted(&shares), [2.0, 3.0, 1.0, 4.0, 6.0, 5.0]);
        assert_eq!(routing.unsorted(&routing.sorted(&shares)), shares);
    }

    #[test]
    fn no_token_is_no_row() {
        let routing = Routing::new(&[], 3);
        assert_eq!((routing.rows.len(), routing.counts.as_slice()), (0, &[0, 0, 0][..]));
        routing.gather_sum::<f32>(&[], 4, &mut []);
    }
}

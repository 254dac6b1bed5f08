//! Rows of a table: looked up, and gradients added to them.

use crate::{number::Number, reduce::add_scaled};

/// `y[t] = table[token[t]]`, rows of `width` elements of any kind.
///
/// # Panics
///
/// If a token is not in the table.
pub fn gather<T: Copy>(table: &[T], width: usize, tokens: &[i32], y: &mut [T]) {
    for (y, &token) in y.chunks_exact_mut(width).zip(tokens) {
        let rows = table.len() / width;
        let row = usize::try_from(token).ok().filter(|row| *row < rows);
        let row = row.unwrap_or_else(|| panic!("token {token} is outside a vocabulary of {rows}"));
        y.copy_from_slice(&table[row * width..][..width]);
    }
}

/// `dtable[token[t]] += dy[t]`, tokens in order.
///
/// # Panics
///
/// If a token is not in the table.
pub fn scatter_add<N: Number>(dtable: &mut [f32], width: usize, tokens: &[i32], dy: &[N]) {
    for (dy, &token) in dy.chunks_exact(width).zip(tokens) {
        add_scaled(&mut dtable[token as usize * width..][..width], 1.0, dy);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_that_comes_twice_gets_both_gradients() {
        let table = [1.0, 2.0, 3.0, 4.0];
        let mut y = [0.0; 6];
        gather(&table, 2, &[1, 0, 1], &mut y);
        assert_eq!(y, [3.0, 4.0, 1.0, 2.0, 3.0, 4.0]);
        let mut dtable = [0.0; 4];
        scatter_add(&mut dtable, 2, &[1, 0, 1], &y);
        assert_eq!(dtable, [1.0, 2.0, 6.0, 8.0]);
    }
}

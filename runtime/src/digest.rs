//! Hashes of tensors that may be spread over ranks by rows.
//!
//! Each row is hashed with its number, and the hashes are joined by exclusive or. So slices can be
//! hashed where they are and joined in any order, and all cuts of a tensor give one hash.

use crate::report::Hash;

/// The hash of rows of a tensor, of which `first` is the number of the first.
pub(crate) fn of_rows(first: usize, columns: usize, values: &[f32]) -> Hash {
    let mut hash = Hash::default();
    for (at, row) in values.chunks(columns.max(1)).enumerate() {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&((first + at) as u64).to_le_bytes());
        hasher.update(bytemuck::cast_slice(row));
        add(&mut hash, hasher.finalize().as_bytes());
    }
    hash
}

/// Joins the hash of other rows.
pub(crate) fn add(hash: &mut Hash, other: &Hash) {
    hash.iter_mut().zip(other).for_each(|(byte, other)| *byte ^= other);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_cuts_give_one_hash_and_any_change_another() {
        let values: Vec<f32> = (0..12).map(|i| i as f32).collect();
        let whole = of_rows(0, 3, &values);
        for cut in 0..=4 {
            let (top, bottom) = values.split_at(3 * cut);
            let mut joined = of_rows(cut, 3, bottom);
            add(&mut joined, &of_rows(0, 3, top));
            assert_eq!(joined, whole);
        }
        let mut swapped = values.clone();
        swapped.rotate_left(3);
        assert_ne!(of_rows(0, 3, &swapped), whole, "rows have numbers");
        swapped.rotate_right(3);
        swapped[5] = -5.0;
        assert_ne!(of_rows(0, 3, &swapped), whole);
    }
}

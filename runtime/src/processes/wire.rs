//! How what actors say is written for another process: a head of small numbers, and tensors behind
//! it that are not copied.
//!
//! Numbers go as their bits, so nothing is rounded. An instant means nothing on another host, so it
//! goes as its age, and comes out late by the time that the message took.

mod messages;
mod reports;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use graphs::{address::Address, plan::Side};
use kernels::mpi::Part;
use ops::{DType, Floats, Tensor};

/// A message that is being written.
#[derive(Debug, Default)]
pub(super) struct Packing {
    /// Everything but the elements of tensors.
    pub head: Vec<u8>,
    /// The elements of each tensor.
    pub parts: Vec<Bytes>,
}

/// A message that is being read.
pub(super) struct Unpacking<'h> {
    head: &'h [u8],
    parts: std::vec::IntoIter<Part>,
    /// What ages are counted back from.
    now: Instant,
}

/// A message is not what one of this program would be.
#[derive(Debug, Eq, PartialEq, thiserror::Error)]
#[error("a message is not one of this version of the program")]
pub(super) struct Damaged;

/// What can be sent to another process.
pub(super) trait Wire: Sized {
    /// Writes it.
    fn put(self, to: &mut Packing);

    /// Reads it.
    ///
    /// # Errors
    ///
    /// [`Damaged`] if something else was written.
    fn take(from: &mut Unpacking<'_>) -> Result<Self, Damaged>;
}

/// Writes something alone.
pub(super) fn packed(what: impl Wire) -> Packing {
    let mut packing = Packing::default();
    what.put(&mut packing);
    packing
}

/// Reads what was written alone.
///
/// # Errors
///
/// [`Damaged`] if something else was, or more than that.
pub(super) fn unpacked<T: Wire>(head: &[u8], parts: Vec<Part>) -> Result<T, Damaged> {
    let mut from = Unpacking { head, parts: parts.into_iter(), now: Instant::now() };
    let what = T::take(&mut from)?;
    let is_whole = from.head.is_empty() && from.parts.len() == 0;
    is_whole.then_some(what).ok_or(Damaged)
}

impl Unpacking<'_> {
    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], Damaged> {
        let (first, rest) = self.head.split_first_chunk().ok_or(Damaged)?;
        self.head = rest;
        Ok(*first)
    }

    fn part(&mut self) -> Result<Part, Damaged> {
        self.parts.next().ok_or(Damaged)
    }
}

impl Wire for u8 {
    fn put(self, to: &mut Packing) {
        to.head.push(self);
    }

    fn take(from: &mut Unpacking<'_>) -> Result<Self, Damaged> {
        Ok(from.bytes::<1>()?[0])
    }
}

impl<const N: usize> Wire for [u8; N] {
    fn put(self, to: &mut Packing) {
        to.head.extend_from_slice(&self);
    }

    fn take(from: &mut Unpacking<'_>) -> Result<Self, Damaged> {
        from.bytes()
    }
}

impl Wire for u64 {
    fn put(self, to: &mut Packing) {
        self.to_le_bytes().put(to);
    }

    fn take(from: &mut Unpacking<'_>) -> Result<Self, Damaged> {
        Ok(u64::from_le_bytes(from.bytes()?))
    }
}

impl Wire for usize {
    fn put(self, to: &mut Packing) {
        (self as u64).put(to);
    }

    fn take(from: &mut Unpacking<'_>) -> Result<Self, Damaged> {
        usize::try_from(u64::take(from)?).map_err(|_| Damaged)
    }
}

impl Wire for f64 {
    fn put(self, to: &mut Packing) {
        self.to_bits().put(to);
    }

    fn take(from: &mut Unpacking<'_>) -> Result<Self, Damaged> {
        Ok(f64::from_bits(u64::take(from)?))
    }
}

impl Wire for f32 {
    fn put(self, to: &mut Packing) {
        self.to_le_bytes().put(to);
    }

    fn take(from: &mut Unpacking<'_>) -> Result<Self, Damaged> {
        Ok(f32::from_le_bytes(from.bytes()?))
    }
}

impl Wire for bool {
    fn put(self, to: &mut Packing) {
        u8::from(self).put(to);
    }

    fn take(from: &mut Unpacking<'_>) -> Result<Self, Damaged> {
        match u8::take(from)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Damaged),
        }
    }
}

impl Wire for String {
    fn put(self, to: &mut Packing) {
        self.len().put(to);
        to.head.extend_from_slice(self.as_bytes());
    }

    fn take(from: &mut Unpacking<'_>) -> Result<Self, Damaged> {
        let len = usize::take(from)?;
        let (text, rest) = from.head.split_at_checked(len).ok_or(Damaged)?;
        from.head = rest;
        String::from_utf8(text.to_vec()).map_err(|_| Damaged)
    }
}

impl<T: Wire> Wire for Option<T> {
    fn put(self, to: &mut Packing) {
        self.is_some().put(to);
        if let Some(what) = self {
            what.put(to);
        }
    }

    fn take(from: &mut Unpacking<'_>) -> Result<Self, Damaged> {
        bool::take(from)?.then(|| T::take(from)).transpose()
    }
}

impl<T: Wire> Wire for Vec<T> {
    fn put(self, to: &mut Packing) {
        self.len().put(to);
        self.into_iter().for_each(|one| one.put(to));
    }

    fn take(from: &mut Unpacking<'_>) -> Result<Self, Damaged> {
        (0..usize::take(from)?).map(|_| T::take(from)).collect()
    }
}

impl<T: Wire> Wire for Box<T> {
    fn put(self, to: &mut Packing) {
        (*self).put(to);
    }

    fn take(from: &mut Unpacking<'_>) -> Result<Self, Damaged> {
        T::take(from).map(Box::new)
    }
}

impl<T: Wire + Clone> Wire for Arc<T> {
    fn put(self, to: &mut Packing) {
        Arc::unwrap_or_clone(self).put(to);
    }

    fn take(from: &mut Unpacking<'_>) -> Result<Self, Damaged> {
        T::take(from).map(Arc::new)
    }
}

impl<A: Wire, B: Wire> Wire for (A, B) {
    fn put(self, to: &mut Packing) {
        self.0.put(to);
        self.1.put(to);
    }

    fn take(from: &mut Unpacking<'_>) -> Result<Self, Damaged> {
        Ok((A::take(from)?, B::take(from)?))
    }
}

impl<A: Wire, B: Wire, C: Wire> Wire for (A, B, C) {
    fn put(self, to: &mut Packing) {
        ((self.0, self.1), self.2).put(to);
    }

    fn take(from: &mut Unpacking<'_>) -> Result<Self, Damaged> {
        Ok((A::take(from)?, B::take(from)?, C::take(from)?))
    }
}

impl<A: Wire, B: Wire, C: Wire, D: Wire> Wire for (A, B, C, D) {
    fn put(self, to: &mut Packing) {
        ((self.0, self.1), (self.2, self.3)).put(to);
    }

    fn take(from: &mut Unpacking<'_>) -> Result<Self, Damaged> {
        let ((a, b), (c, d)) = Wire::take(from)?;
        Ok((a, b, c, d))
    }
}

impl<A: Wire, B: Wire, C: Wire, D: Wire, E: Wire> Wire for (A, B, C, D, E) {
    fn put(self, to: &mut Packing) {
        ((self.0, self.1), (self.2, self.3, self.4)).put(to);
    }

    fn take(from: &mut Unpacking<'_>) -> Result<Self, Damaged> {
        let ((a, b), (c, d, e)) = Wire::take(from)?;
        Ok((a, b, c, d, e))
    }
}

impl<A: Wire, B: Wire, C: Wire, D: Wire, E: Wire, F: Wire> Wire for (A, B, C, D, E, F) {
    fn put(self, to: &mut Packing) {
        ((self.0, self.1, self.2), (self.3, self.4, self.5)).put(to);
    }

    fn take(from: &mut Unpacking<'_>) -> Result<Self, Damaged> {
        let ((a, b, c), (d, e, f)) = Wire::take(from)?;
        Ok((a, b, c, d, e, f))
    }
}

impl Wire for Instant {
    fn put(self, to: &mut Packing) {
        u64::try_from(self.elapsed().as_nanos()).unwrap_or(u64::MAX).put(to);
    }

    fn take(from: &mut Unpacking<'_>) -> Result<Self, Damaged> {
        let age = Duration::from_nanos(u64::take(from)?);
        Ok(from.now.checked_sub(age).unwrap_or(from.now))
    }
}

impl Wire for Address {
    fn put(self, to: &mut Packing) {
        (self.replica, self.stage, self.rank, self.side == Side::Experts).put(to);
    }

    fn take(from: &mut Unpacking<'_>) -> Result<Self, Damaged> {
        let (replica, stage, rank, is_experts) = Wire::take(from)?;
        let side = if is_experts { Side::Experts } else { Side::Stage };
        Ok(Address { replica, stage, rank, side })
    }
}

impl Wire for Tensor {
    fn put(self, to: &mut Packing) {
        (self.dtype() as u8, self.shape().to_vec()).put(to);
        to.parts.push(self.bytes().clone());
    }

    fn take(from: &mut Unpacking<'_>) -> Result<Self, Damaged> {
        let (dtype, shape) = <(u8, Vec<usize>)>::take(from)?;
        let known = [DType::F32, DType::Bf16, DType::I32];
        let dtype = known.into_iter().find(|it| *it as u8 == dtype).ok_or(Damaged)?;
        let part = from.part()?;
        let elements = shape.iter().try_fold(dtype.size(), |all, extent| all.checked_mul(*extent));
        if elements != Some(part.len()) {
            return Err(Damaged);
        }
        Ok(Tensor::from_bytes(&shape, dtype, part.into_bytes()))
    }
}

impl Wire for Floats {
    fn put(self, to: &mut Packing) {
        let values = match self {
            Floats::Host(values) => values,
            Floats::Gpu(_) => self.to_host(),
        };
        to.parts.push(Tensor::from_f32(&[values.len()], values).bytes().clone());
    }

    fn take(from: &mut Unpacking<'_>) -> Result<Self, Damaged> {
        Ok(Floats::Host(from.part()?.into_floats()))
    }
}

#[cfg(test)]
mod tests;

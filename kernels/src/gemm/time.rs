//! How long the calling thread has spent in matrix products, for `troupe bench`.

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

thread_local! {
    static SPENT: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

/// Returns the time that this thread spent in products since the last call, and starts anew.
pub fn take() -> Duration {
    SPENT.take()
}

pub(super) fn start() -> Instant {
    Instant::now()
}

pub(super) fn stop(started: Instant) {
    SPENT.set(SPENT.get() + started.elapsed());
}

#[cfg(test)]
mod tests {
    use super::super::{Matrix, MatrixMut, Output, product};

    #[test]
    fn products_are_timed_once() {
        let a = vec![1.0; 64 * 64];
        let mut c = vec![0.0; 64 * 64];
        super::take();
        let a = Matrix::new(&a, 64, 64);
        product(MatrixMut::new(&mut c, 64, 64), Output::Write, 1.0, a, a);
        assert!(super::take() > std::time::Duration::ZERO);
        assert_eq!(super::take(), std::time::Duration::ZERO);
    }
}

//! What passing messages between threads costs.

use std::{
    sync::mpsc::{self, Receiver, Sender},
    thread,
    time::Instant,
};

use super::least;

/// Messages of one measurement.
const COUNT: usize = 2_000;

/// Measurements, of which the least counts.
const REPEATS: usize = 9;

/// Bytes of a copy: more than a core's caches keep beside other work.
const BYTES: usize = 4 << 20;

/// Seconds that a send costs its thread; a receive of what has arrived costs as much.
pub fn sending() -> f64 {
    let once = || {
        let (sender, receiver) = mpsc::channel();
        let begin = Instant::now();
        for number in 0..COUNT {
            // The receiver lives until all is sent.
            let _ = sender.send(vec![number]);
        }
        let seconds = begin.elapsed().as_secs_f64();
        drop(receiver);
        seconds / COUNT as f64
    };
    least((0..REPEATS).map(|_| once()))
}

/// Seconds from a send until another thread, which slept, has it.
pub fn latency() -> f64 {
    let (there, ahead): (Sender<Instant>, Receiver<Instant>) = mpsc::channel();
    let (back, behind) = mpsc::channel();
    let echo = thread::spawn(move || {
        while let Ok(sent) = ahead.recv() {
            if back.send(sent.elapsed().as_secs_f64()).is_err() {
                return;
            }
        }
    });
    let once = |_| {
        // The echo lives until this sender is dropped.
        let _ = there.send(Instant::now());
        behind.recv().unwrap_or_default()
    };
    let seconds = least((0..COUNT).map(once));
    drop(there);
    // The echo has nothing that could fail.
    let _ = echo.join();
    seconds
}

/// Seconds for each byte of pieces that are joined.
pub fn copying() -> f64 {
    let piece = vec![1_u8; BYTES];
    let once = || {
        let begin = Instant::now();
        let mut whole = Vec::with_capacity(2 * BYTES);
        whole.extend_from_slice(&piece);
        whole.extend_from_slice(&piece);
        let seconds = begin.elapsed().as_secs_f64();
        std::hint::black_box(&whole);
        seconds / whole.len() as f64
    };
    least((0..REPEATS).map(|_| once()))
}

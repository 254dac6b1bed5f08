//! Which cores a thread runs on.

use std::ops::Range;

/// Keeps the calling thread to some of the process's cores, counted from 0, so that it finds its
/// caches as it left them and never waits behind a thread that has cores of its own.
///
/// Does nothing where the system has no such call, or if none of these cores is there.
pub fn keep_to(cores: Range<usize>) {
    #[cfg(target_os = "linux")]
    {
        let own: Vec<usize> = allowed();
        let wanted: Vec<usize> = cores.filter_map(|core| own.get(core).copied()).collect();
        if wanted.is_empty() {
            return;
        }
        // SAFETY: a set of zeros is an empty set; `CPU_SET` ignores cores that it has no bit for;
        // the call reads the set and touches the calling thread alone. If the system refuses, the
        // thread runs where it did.
        unsafe {
            let mut set: libc::cpu_set_t = std::mem::zeroed();
            wanted.iter().for_each(|core| libc::CPU_SET(*core, &mut set));
            libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set);
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = cores;
}

/// The cores that the calling thread may run on.
#[cfg(target_os = "linux")]
fn allowed() -> Vec<usize> {
    // SAFETY: as in `keep_to`; the call fills the set, which is as large as it is told.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        if libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set) != 0 {
            return Vec::new();
        }
        (0..libc::CPU_SETSIZE as usize).filter(|core| libc::CPU_ISSET(*core, &set)).collect()
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_thread_keeps_to_its_cores_and_others_are_left_alone() {
        let before = allowed();
        let inside = std::thread::spawn(|| {
            keep_to(0..1);
            let one = allowed();
            keep_to(5_000..5_001);
            (one, allowed())
        });
        let (one, still) = inside.join().unwrap();
        assert_eq!(one, before[..1]);
        assert_eq!(still, one, "a core that is not there changes nothing");
        assert_eq!(allowed(), before);
    }
}

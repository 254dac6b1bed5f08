//! Words and units that several pages share.

use graphs::timeline::Cause;

/// A cause of idle time in a word or two.
pub fn cause(cause: Cause) -> &'static str {
    match cause {
        Cause::WarmUp => "warm-up",
        Cause::Data => "data",
        Cause::Transfer => "transfer",
        Cause::Link => "link",
        Cause::Credit => "credit",
        Cause::HostLink => "host link",
        Cause::Core => "core",
        Cause::CoolDown => "cool-down",
    }
}

/// Seconds in a unit that leaves a number above one.
pub fn time(seconds: f64) -> String {
    match seconds {
        s if s >= 1.0 => format!("{s:.3} s"),
        s if s >= 1e-3 => format!("{:.2} ms", 1e3 * s),
        s => format!("{:.1} us", 1e6 * s),
    }
}
